"""Affine coupling layers: a map of noise to latents that is inverted as fast as it is computed."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from training.networks import mlp

_GREATEST_LOG_SCALE: Final = 1.0  # a layer multiplies by e at the most, so that no sample runs away


class Couplings(nn.Module):
    """A stack of affine coupling layers (RealNVP), whose Jacobian is known. At first it is the identity.

    https://arxiv.org/abs/1605.08803, equations 4 to 9. A layer keeps some dimensions of a vector z. From these, a
    network computes log scales s and shifts t for the others, which become z·exp(s) + t. Layers 2k and 2k + 1 keep
    the dimensions whose number has a 0 and a 1, respectively, as its k-th binary digit; after the last digit, the
    first one follows. So with enough layers, any two dimensions are on opposite sides of some layer.

    One dimension alone has no other to depend on. Then the map is affine, and every second layer is the identity.

    Args:
        latent_dim: Dimensions m of a latent, and of the noise.
        layers: Number of layers, at least two: one layer alone does not change every dimension.
        hidden: Width of the two hidden layers of each layer's network.
        context_dim: Dimensions of a vector that comes with each row of noise and that every network sees; 0 for none.
    """

    def __init__(self, latent_dim: int, layers: int, hidden: int, context_dim: int = 0) -> None:
        super().__init__()
        numbers, digits = torch.arange(latent_dim), max(1, (latent_dim - 1).bit_length())
        kept = [numbers >> (layer // 2 % digits) & 1 == layer % 2 for layer in range(layers)]
        self.layers = nn.ModuleList(_Coupling(dimensions.float(), hidden, context_dim) for dimensions in kept)

    def forward(self, noise: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the latents of noise, [B, m], and ln |det| of the map's Jacobian there, [B].

        Args:
            noise: Noise [B, m].
            context: Context [B, context_dim], if there is one.
        """
        latents, log_scales = noise, []
        for layer in self.layers:
            log_scale, shift = layer(latents, context)
            latents = latents * torch.exp(log_scale) + shift
            log_scales.append(log_scale)
        return latents, torch.stack(log_scales).sum(dim=(0, 2))

    def inverse(self, latents: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the noise of latents, [B, m], and ln |det| of the inverse map's Jacobian there, [B].

        Args:
            latents: Latents [B, m].
            context: Context [B, context_dim], if there is one.
        """
        noise, log_scales = latents, []
        for layer in reversed(self.layers):
            log_scale, shift = layer(noise, context)
            noise = (noise - shift) * torch.exp(-log_scale)
            log_scales.append(log_scale)
        return noise, -torch.stack(log_scales).sum(dim=(0, 2))


class _Coupling(nn.Module):
    """The log scales and shifts, each [B, m], of one layer: 0 for the dimensions that it keeps, and all 0 at first.

    Args:
        kept: 1 for the dimensions that the layer keeps and 0 for the others, [m].
        hidden: Width of the two hidden layers of the network.
        context_dim: Dimensions of the context; 0 for none.
    """

    kept: Tensor

    def __init__(self, kept: Tensor, hidden: int, context_dim: int) -> None:
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)
        self.network = mlp(len(kept) + context_dim, 2 * len(kept), hidden, layers=2)
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, values: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = self.kept * values
        output = self.network(seen if context is None else torch.cat([seen, context], dim=1))
        log_scale, shift = output.chunk(2, dim=1)
        changed = 1.0 - self.kept
        bounded = torch.tanh(log_scale / _GREATEST_LOG_SCALE)
        return _GREATEST_LOG_SCALE * changed * bounded, changed * shift
