"""Encoder, decoder and MLP stacks, as the FlexAE paper draws them for every data set (2006.05838)."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import nn

from rae_serve.errors import InvalidInput

ImageShape = tuple[int, int, int]  # channels, height, width
Module = TypeVar("Module", bound=nn.Module)


def conv_encoder(shape: ImageShape, latent_dim: int, filters: int, hidden: int) -> nn.Sequential:
    """[B, C, H, W] → [B, m]: conv, conv, FC, FC. Weights start as torch's layers do; the source says nothing."""
    channels, height, width = _divisible(shape)
    return nn.Sequential(
        nn.Conv2d(channels, filters, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(filters, 2 * filters, 4, stride=2, padding=1),
        _batch_norm(nn.BatchNorm2d, 2 * filters),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * filters * (height // 4) * (width // 4), hidden),
        _batch_norm(nn.BatchNorm1d, hidden),
        nn.ReLU(),
        nn.Linear(hidden, latent_dim),
    )


def conv_decoder(
    shape: ImageShape, latent_dim: int, filters: int, hidden: int, *, normalised: bool = True
) -> nn.Sequential:
    """[B, m] → [B, C, H, W] in (0, 1): FC, FC, transposed conv ×2, conv, sigmoid. Glorot-normal weights.

    Batch norm follows all but the last, unless not `normalised`.
    """
    channels, height, width = _divisible(shape)
    small = (2 * filters, height // 4, width // 4)

    def activation(kind: type[nn.BatchNorm1d | nn.BatchNorm2d], features: int) -> list[nn.Module]:
        return [_batch_norm(kind, features), nn.ReLU()] if normalised else [nn.ReLU()]

    return glorot(
        nn.Sequential(
            nn.Linear(latent_dim, hidden),
            *activation(nn.BatchNorm1d, hidden),
            nn.Linear(hidden, math.prod(small)),
            *activation(nn.BatchNorm1d, math.prod(small)),
            nn.Unflatten(1, small),
            nn.ConvTranspose2d(2 * filters, 2 * filters, 4, stride=2, padding=1),
            *activation(nn.BatchNorm2d, 2 * filters),
            nn.ConvTranspose2d(2 * filters, filters, 4, stride=2, padding=1),
            *activation(nn.BatchNorm2d, filters),
            nn.Conv2d(filters, channels, 3, padding=1),
            nn.Sigmoid(),
        )
    )


def mlp_encoder(shape: ImageShape, latent_dim: int, hidden: int, layers: int) -> nn.Sequential:
    """[B, C, H, W] → [B, m]: `layers` × (FC ReLU) and one FC, as MaskAAE's for MNIST (1912.04564)."""
    return nn.Sequential(nn.Flatten(), *mlp(math.prod(shape), latent_dim, hidden, layers))


def mlp_decoder(shape: ImageShape, latent_dim: int, hidden: int, layers: int) -> nn.Sequential:
    """[B, m] → [B, C, H, W] in (0, 1): the encoder's mirror, with a sigmoid."""
    stack = mlp(latent_dim, math.prod(shape), hidden, layers)
    return nn.Sequential(*stack, nn.Sigmoid(), nn.Unflatten(1, shape))


def conv_critic(shape: ImageShape, filters: int, hidden: int) -> nn.Sequential:
    """[B, C, H, W] → [B, 1]: conv, conv, FC, FC; no normalisation, which a gradient penalty does not suffer."""
    channels, height, width = _divisible(shape)
    return glorot(
        nn.Sequential(
            nn.Conv2d(channels, filters, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(filters, 2 * filters, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * filters * (height // 4) * (width // 4), hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )
    )


def mlp(inputs: int, outputs: int, hidden: int, layers: int) -> nn.Sequential:
    """[B, inputs] → [B, outputs] through `layers` × (FC ReLU) and one FC. Glorot-normal weights."""
    stack: list[nn.Module] = []
    for _ in range(layers):
        stack += [nn.Linear(inputs, hidden), nn.ReLU()]
        inputs = hidden
    return glorot(nn.Sequential(*stack, nn.Linear(inputs, outputs)))


def glorot(module: Module) -> Module:
    """Draw every weight Glorot-normal and set every bias to 0, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def _batch_norm(kind: type[nn.BatchNorm1d | nn.BatchNorm2d], features: int) -> nn.Module:
    # The authors' TensorFlow defaults, decay 0.99 and epsilon 1e-3, in torch's terms.
    return kind(features, momentum=0.01, eps=1e-3)


def _divisible(shape: ImageShape) -> ImageShape:
    channels, height, width = shape
    if height % 4 or width % 4:
        raise InvalidInput("image", f"{height} × {width} pixels: both sides must be multiples of 4")
    return channels, height, width
