"""Wrappers that any prior can use: a moving average of a network's weights, and whitened coordinates."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from training.optimizers import Update
from training.priors.base import Prior, Report, ignore


class Averaged(nn.Module):
    """A network that is evaluated with the exponential moving average of its weights.

    Args:
        network: The network. Training uses and changes its own weights.
        decay: The share of the old average in the new one at every step, below 1. Higher values average over more
            steps.
    """

    steps: Tensor

    def __init__(self, network: nn.Sequential, decay: float) -> None:
        super().__init__()
        self.network = network
        self.decay = decay
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.network if self.training else self.average)(x)

    @torch.no_grad()
    def update(self) -> None:
        """Update the average by the current weights.

        The first steps use a shorter average, so that the random initial weights are forgotten.
        """
        self.steps += 1
        weight = max(1.0 - self.decay, 9.0 / (9.0 + int(self.steps)))
        for average, current in zip(self.average.parameters(), self.network.parameters(), strict=True):
            average.lerp_(current, weight)

    def restart(self) -> None:
        """Start a new average at the current weights."""
        self.average.load_state_dict(self.network.state_dict())
        self.steps.zero_()


class Whitened(Prior):
    """A prior in coordinates in which the latents have mean 0 and covariance I.

    A latent is μ + L·z, with z a latent of the inner prior. Before `start`, μ is 0 and L is I. `start` sets them to
    the mean of the latents and the Cholesky factor of their covariance. The inner prior sees whitened latents only.

    Args:
        prior: The inner prior.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, prior: Prior) -> None:
        super().__init__(prior.latent_dim, prior.roles)
        self.prior = prior
        self.register_buffer("shift", torch.zeros(prior.latent_dim))
        self.register_buffer("scale", torch.eye(prior.latent_dim))

    def forward(self, noise: Tensor) -> Tensor:
        return self.shift + self.prior(noise) @ self.scale.T

    @property
    def fitted(self) -> bool:
        return self.prior.fitted

    @property
    def least_latents(self) -> int:
        return self.prior.least_latents

    def whiten(self, latents: Tensor) -> Tensor:
        """Return latents [B, latent_dim] in the coordinates of the inner prior."""
        return torch.linalg.solve_triangular(self.scale, (latents - self.shift).T, upper=False).T

    @torch.no_grad()
    def start(self, latents: Tensor, held_out: Tensor, report: Report = ignore) -> None:
        covariance = torch.cov(latents.double().T).reshape(self.scale.shape)
        # An unused dimension has no variance, and if all images are the same, no dimension has any.
        least = (1e-6 * covariance.diagonal().mean()).clamp(min=1e-12)
        self.shift.copy_(latents.mean(dim=0))
        self.scale.copy_(
            torch.linalg.cholesky(covariance + least * torch.eye(len(covariance), device=latents.device))
        )
        self.prior.start(self.whiten(latents), self.whiten(held_out), report)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return self.prior.optimizers()

    def updates(self, latents: Iterator[Tensor], progress: float) -> Iterator[Update]:
        return self.prior.updates(map(self.whiten, latents), progress)

    def finish(self) -> None:
        self.prior.finish()

    def diagnostics(self) -> dict[str, float]:
        return self.prior.diagnostics()

    def log_density(self, latents: Tensor) -> Tensor | None:
        inner = self.prior.log_density(self.whiten(latents))
        return None if inner is None else inner - self.scale.diagonal().log().sum()
