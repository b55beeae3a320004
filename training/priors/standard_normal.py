"""The fixed prior N(0, I)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.priors.base import Prior


class StandardNormal(Prior):
    """N(0, I): the latents are the noise itself."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim, ["gaussian"] * latent_dim)
        self.register_buffer("_device", torch.zeros(0), persistent=False)  # follows the model to its device

    def forward(self, noise: Tensor) -> Tensor:
        return noise

    def log_density(self, latents: Tensor) -> Tensor:
        return -0.5 * (latents.square().sum(dim=1) + self.latent_dim * math.log(2.0 * math.pi))
