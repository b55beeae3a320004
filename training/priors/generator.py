"""The learned prior."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from rae_serve.errors import InvalidInput
from training.networks import mlp
from training.priors.base import Prior


class Generator(Prior):
    """P-GEN, the learned prior of FlexAE: an MLP from noise to latents (2006.05838).

    With `average` > 0, evaluation uses an exponential moving average of the weights, of that decay a step.
    With `whitened` latents are shift + scale·(n + MLP(n)), n being the first noise and scale triangular: μ and
    the Cholesky factor of the covariance of some codes after `start_at`, 0 and I before.
    Raises InvalidInput where noise_dim < latent_dim: the theory asks for m' ≥ m, else the prior has no density.
    """

    def __init__(
        self,
        latent_dim: int,
        noise_dim: int,
        hidden: int,
        layers: int,
        *,
        average: float = 0.0,
        whitened: bool = False,
    ) -> None:
        super().__init__(latent_dim, noise_dim)
        if noise_dim < latent_dim:
            raise InvalidInput(
                "noise_dim",
                f"must be at least latent_dim = {latent_dim} for a learned prior, not {noise_dim}",
            )
        self.network = mlp(noise_dim, latent_dim, hidden, layers)
        self.whitened = whitened
        if whitened:
            self.register_buffer("shift", torch.zeros(latent_dim))
            self.register_buffer("scale", torch.eye(latent_dim))
        self.average = average
        if average:
            self.averaged = copy.deepcopy(self.network).requires_grad_(False)
            self.register_buffer("averaged_steps", torch.zeros((), dtype=torch.int64))

    def forward(self, noise: Tensor) -> Tensor:
        white = self.white(noise)
        return self.shift + white @ self.scale.T if self.whitened else white

    def white(self, noise: Tensor) -> Tensor:
        """Latents of noise, whitened where the prior is."""
        output = (self.network if self.training or not self.average else self.averaged)(noise)
        return noise[:, : self.latent_dim] + output if self.whitened else output

    def whiten(self, latents: Tensor) -> Tensor:
        """Any latents [B, latent_dim] in the coordinates of `white`."""
        if not self.whitened:
            return latents
        return torch.linalg.solve_triangular(self.scale, (latents - self.shift).T, upper=False).T

    @torch.no_grad()
    def start_at(self, codes: Tensor) -> None:
        """Become the Gaussian of codes [N, latent_dim], whatever was learned before; only where whitened."""
        covariance = torch.cov(codes.double().T).reshape(self.scale.shape)
        # A dimension that the encoder leaves unused has no variance, and none has any where all images are one.
        least = (1e-6 * covariance.diagonal().mean()).clamp(min=1e-12)
        self.shift.copy_(codes.mean(dim=0))
        self.scale.copy_(torch.linalg.cholesky(covariance + least * torch.eye(len(covariance), device=codes.device)))
        last = self.network[-1]
        last.weight.zero_()
        last.bias.zero_()
        if self.average:
            self.averaged.load_state_dict(self.network.state_dict())
            self.averaged_steps.zero_()

    @torch.no_grad()
    def update_average(self) -> None:
        """Take the weights of this step into their average. The first steps weigh more, lest chance stays in it."""
        if not self.average:
            return
        self.averaged_steps += 1
        steps = int(self.averaged_steps)
        weight = max(1.0 - self.average, 9.0 / (9.0 + steps))
        for averaged, current in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            averaged.lerp_(current, weight)
