"""FactorVAE: a VAE whose latent dimensions are made independent of each other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import softplus

from training.models.vae import VAE
from training.networks import ImageShape, mlp
from training.optimizers import Update, adam


class FactorVAE(VAE):
    """A VAE whose loss also holds γ times the total correlation of the latents, which a critic estimates.

    https://arxiv.org/abs/1802.05983, algorithm 2. The total correlation is the KL divergence of the latents'
    distribution from the product of its marginals. The critic is a classifier: it tells latents from those of a
    second batch, each of whose dimensions is permuted by itself across that batch. The mean of its logit over latents
    estimates the total correlation.

    Ours: the networks of the VAE are FlexAE's with its batch norm. The critic has one logit in place of two, whose
    difference is all that counts, and its update uses the encoder as it is after the VAE's update.

    Args:
        gamma: γ, the weight of the total correlation. Higher values make the latent dimensions more independent and
            reconstructions worse.
        critic_hidden: Width of the critic's hidden layers.
        critic_layers: Number of the critic's hidden layers.
        critic_lr: Learning rate of the critic.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 10,
        lr: PositiveFloat = 1e-4,
        gamma: NonNegativeFloat = 10.0,
        critic_hidden: PositiveInt = 1000,
        critic_layers: PositiveInt = 6,
        critic_lr: PositiveFloat = 1e-4,
        **vae: Any,
    ) -> None:
        super().__init__(image_shape, latent_dim=latent_dim, lr=lr, **vae)
        self.critic = mlp(latent_dim, 1, critic_hidden, critic_layers, activation=partial(nn.LeakyReLU, 0.2))
        self.gamma = gamma
        self.critic_lr = critic_lr

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return super().optimizers() | {"critic": adam(self.critic.parameters(), self.critic_lr, betas=(0.5, 0.9))}

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        x = next(batches)
        yield from super().updates(iter([x]), progress)
        joint, independent = self.critic(self.codes(x)), self.critic(permuted(self.codes(next(batches))))
        # The cross-entropy of a logit l is softplus(−l) for the class "joint" and softplus(l) for the other.
        yield "critic", {"cross_entropy": 0.5 * (softplus(-joint) + softplus(independent)).mean()}

    def further_terms(self, rows: Tensor, latents: Tensor) -> dict[str, Tensor]:
        return {"total_correlation": self.gamma * self.critic(latents).mean()}


def permuted(latents: Tensor) -> Tensor:
    """Return latents [B, m] with each dimension permuted across the batch by itself."""
    return latents.gather(0, torch.rand_like(latents).argsort(dim=0))
