"""The second stage of the 2-Stage VAE: a VAE of latents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from training.losses import gaussian_kl, gaussian_nll
from training.networks import glorot, mlp
from training.optimizers import Update, adam
from training.priors.base import Prior

_FIRST_GAMMA: Final = 0.1
_LEAST_GAMMA: Final = 1e-3  # a thousandth of the standard deviation of whitened latents


class SecondStage(Prior):
    """A VAE of latents: z = ẑ(u) + γ·ε, with u and ε ~ N(0, I), and one learned γ.

    https://arxiv.org/abs/1903.05789, section 4. The first columns of the noise are u, the others ε. The last layer of
    each network sees the network's input beside the hidden layer. The latents' density is not known, only a bound.

    Ours: γ starts at 0.1, not at 1. Whitened latents have the mean and the covariance of noise with γ = 1, so that
    from there the VAE learns nothing more. The learning rate is constant, where the authors halve it at fixed
    intervals. Where the sources are silent: the initial weights are Glorot-normal, and γ is kept at 0.001 or more.

    Args:
        latent_dim: Dimensions m of a latent, and of u.
        hidden: Width of the hidden layers of encoder and decoder.
        layers: Number of hidden layers of encoder and decoder.
        lr: Learning rate of Adam.
    """

    def __init__(
        self, latent_dim: int, *, hidden: PositiveInt = 1024, layers: PositiveInt = 3, lr: PositiveFloat = 1e-4
    ) -> None:
        super().__init__(latent_dim, ["gaussian"] * (2 * latent_dim))
        self.encoder = _Skipping(latent_dim, 2 * latent_dim, hidden, layers)
        self.decoder = _Skipping(latent_dim, latent_dim, hidden, layers)
        self.log_gamma = nn.Parameter(torch.tensor(math.log(_FIRST_GAMMA)))
        self.lr = lr

    def forward(self, noise: Tensor) -> Tensor:
        u, epsilon = noise.chunk(2, dim=1)
        return self.decoder(u) + torch.exp(self.log_gamma) * epsilon

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"prior_vae": adam(self.parameters(), self.lr)}

    def updates(self, latents: Iterator[Tensor], progress: float) -> Iterator[Update]:
        z = next(latents)
        mean, log_variance = self.encoder(z).chunk(2, dim=1)
        u = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        yield (
            "prior_vae",
            {
                "reconstruction": gaussian_nll(self.decoder(u), z, self.log_gamma),
                "kl": gaussian_kl(mean, log_variance),
            },
        )
        with torch.no_grad():
            self.log_gamma.clamp_(min=math.log(_LEAST_GAMMA))

    def diagnostics(self) -> dict[str, float]:
        """Return γ."""
        return {"gamma": self.log_gamma.exp().item()}


class _Skipping(nn.Module):
    """An MLP whose last layer sees the input beside the last hidden layer."""

    def __init__(self, inputs: int, outputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(mlp(inputs, hidden, hidden, layers - 1), nn.ReLU())
        self.output = glorot(nn.Linear(inputs + hidden, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.cat([x, self.hidden(x)], dim=1))
