"""Priors: each owns its sampling (a deterministic function of noise) and its fit, so that both are saved."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Prior(nn.Module):
    """A distribution of latents [B, latent_dim] as a function of noise ~ N(0, I), [B, noise_dim]."""

    def __init__(self, latent_dim: int, noise_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.noise_dim = noise_dim
        self.roles = ["gaussian"] * noise_dim

    def noise(self, count: int) -> Tensor:
        """Fresh noise [count, noise_dim] on the model's device, for training."""
        return torch.randn(count, self.noise_dim, device=next(self.parameters()).device)
