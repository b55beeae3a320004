"""The one way to run a trained model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rae_serve import noise
from rae_serve.arrays import Pixels
from training.autoencoder import Autoencoder
from training.data.batches import to_pixels, to_tensor


class PriorGraph(nn.Module):
    """noise float32 [B, noise_dim] → latent float32 [B, latent_dim]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.prior = model.prior

    def forward(self, noise: Tensor) -> Tensor:
        return self.prior(noise)


class DecoderGraph(nn.Module):
    """latent float32 [B, latent_dim] → image uint8 [B, H, W, C]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        return to_pixels(self.model.decode(latent))


class EncoderGraph(nn.Module):
    """image uint8 [B, H, W, C] → latent float32 [B, latent_dim]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.encode(image.permute(0, 3, 1, 2).float() / 255.0)


class GeneratorGraph(nn.Module):
    """noise float32 [B, noise_dim] → image uint8 [B, H, W, C]: prior and decoder in one."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.prior = PriorGraph(model)
        self.decode = DecoderGraph(model)

    def forward(self, noise: Tensor) -> Tensor:
        return self.decode(self.prior(noise))


@torch.no_grad()
def encode_all(model: Autoencoder, images: Pixels, index: np.ndarray, device: torch.device) -> np.ndarray:  # [N, m]
    """Codes, float32 [N, m], of the images at `index`, in evaluation mode."""
    model.eval()
    parts = (to_tensor(images[index[start : start + 1000]], device) for start in range(0, len(index), 1000))
    return torch.cat([model.encode(x) for x in parts]).cpu().numpy()


@torch.no_grad()
def reconstruct(model: Autoencoder, images: Pixels, device: torch.device) -> Pixels:
    """Images, uint8 [N, H, W, C], encoded and decoded in evaluation mode."""
    model.eval()
    parts = (to_tensor(images[start : start + 250], device) for start in range(0, len(images), 250))
    return torch.cat([to_pixels(model.decode(model.encode(x))) for x in parts]).cpu().numpy()


@torch.no_grad()
def sample(model: Autoencoder, count: int, device: torch.device) -> Pixels:
    """The first images of seed 0, as the service will show them; leaves torch's random state alone."""
    model.eval()
    rows = noise.normals(0, 0, count, model.prior.noise_dim)
    return to_pixels(model.decode(model.prior(torch.from_numpy(rows).to(device)))).cpu().numpy()
