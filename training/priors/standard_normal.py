"""The fixed prior."""

from __future__ import annotations

import torch
from torch import Tensor

from training.priors.base import Prior


class StandardNormal(Prior):
    """N(0, I): latents are the noise itself."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim, latent_dim)
        self.register_buffer("_where", torch.zeros(0), persistent=False)  # follows the model to its device

    def noise(self, count: int) -> Tensor:
        return torch.randn(count, self.noise_dim, device=self._where.device)

    def forward(self, noise: Tensor) -> Tensor:
        return noise
