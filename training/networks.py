"""Encoders, decoders, critics and MLPs: the networks of FlexAE and MaskAAE, for images of any size.

FlexAE: https://arxiv.org/abs/2006.05838. MaskAAE: https://arxiv.org/abs/1912.04564.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Final, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from rae_serve.errors import InvalidInput

ImageShape = tuple[int, int, int]  # channels, height, width
Stages = int | Literal["auto"]
Module = TypeVar("Module", bound=nn.Module)

# Decay 0.99 and epsilon 1e-3 are the defaults of TensorFlow, which the authors use; momentum is 1 − decay.
NORM_MOMENTUM: Final = 0.01
_NORM_EPSILON: Final = 1e-3


class Sigmoid(nn.Sigmoid):
    """A sigmoid in float32, also behind layers in bfloat16, in which values near 1 would become 1."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class _AveragingNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm whose running statistics are the mean of all batches so far, until there are 1 / momentum of them.

    Torch's start at a mean of 0 and a variance of 1. With a momentum of 0.01 some 300 steps pass before these do not
    count any more, and until then the images are wrong.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.track_running_stats):
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        y = functional.batch_norm(
            x, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
        )
        self.num_batches_tracked += 1
        share = self.num_batches_tracked.reciprocal().clamp(min=self.momentum)  # stays on the device
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
        return y


class BatchNorm1d(_AveragingNorm, nn.BatchNorm1d):
    """Batch norm of [B, C] with averaged statistics."""


class BatchNorm2d(_AveragingNorm, nn.BatchNorm2d):
    """Batch norm of [B, C, H, W] with averaged statistics."""


def conv_encoder(
    shape: ImageShape, latent_dim: int, filters: int, hidden: int, *, stages: Stages = 2, normalised: bool = True
) -> nn.Sequential:
    """Build FlexAE's encoder, [B, C, H, W] → [B, m]: two convolutions, then two fully connected layers.

    The initial weights are torch's defaults, because the paper names none.

    Args:
        shape: Channels, height and width of an image. Height and width must be multiples of 2^stages.
        latent_dim: m, the width of the output.
        filters: The channels of the first convolution; each further one has twice as many as the one before.
        hidden: The width of the hidden fully connected layer.
        stages: The number of convolutions, each of which halves height and width; "auto" as for `count_stages`.
        normalised: Whether batch norm follows every layer but the first and the last.
    """
    stages = count_stages(shape, stages)
    (channels, _, _), small = shape, _smallest(shape, filters, stages)
    layers: list[nn.Module] = [nn.Conv2d(channels, filters, 4, stride=2, padding=1), nn.ReLU()]
    for width in (filters * 2**stage for stage in range(1, stages)):
        layers += [
            nn.Conv2d(width // 2, width, 4, stride=2, padding=1),
            *_activation(BatchNorm2d, width, normalised),
        ]
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(math.prod(small), hidden),
        *_activation(BatchNorm1d, hidden, normalised),
        nn.Linear(hidden, latent_dim),
    )


def conv_decoder(
    shape: ImageShape, latent_dim: int, filters: int, hidden: int, *, stages: Stages = 2, normalised: bool = True
) -> nn.Sequential:
    """Build FlexAE's decoder, [B, m] → [B, C, H, W] in (0, 1).

    Two fully connected layers, two transposed convolutions, a convolution and a sigmoid. The initial weights are
    Glorot-normal. With stages="auto", convolutions after an enlargement take the place of transposed convolutions, so
    that images have no pattern of squares (https://distill.pub/2016/deconv-checkerboard/).

    Args:
        shape: Channels, height and width of an image. Height and width must be multiples of 2^stages.
        latent_dim: m, the width of the input.
        filters: The channels before the last convolution; each doubling of the sides but the first halves them.
        hidden: The width of the first fully connected layer.
        stages: How often height and width are doubled; "auto" as for `count_stages`.
        normalised: Whether batch norm follows every layer but the last.
    """
    doubled = _enlarged if stages == "auto" else _transposed
    stages = count_stages(shape, stages)
    (channels, _, _), small = shape, _smallest(shape, filters, stages)
    widths = [small[0], *(filters * 2**stage for stage in reversed(range(stages)))]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [*doubled(inputs, outputs), *_activation(BatchNorm2d, outputs, normalised)]
    return glorot(
        nn.Sequential(
            nn.Linear(latent_dim, hidden),
            *_activation(BatchNorm1d, hidden, normalised),
            nn.Linear(hidden, math.prod(small)),
            *_activation(BatchNorm1d, math.prod(small), normalised),
            nn.Unflatten(1, small),
            *layers,
            nn.Conv2d(filters, channels, 3, padding=1),
            Sigmoid(),
        )
    )


def conv_critic(shape: ImageShape, filters: int, hidden: int) -> nn.Sequential:
    """Build an image critic, [B, C, H, W] → [B, 1]: FlexAE's encoder with Glorot-normal initial weights.

    It has no batch norm: with it, a sample's score would depend on the other samples of the batch, and a gradient
    penalty (https://arxiv.org/abs/1704.00028) needs scores that do not.

    Args:
        shape: Channels, height and width of an image. Height and width must be multiples of 4.
        filters: The channels of the first convolution; the second has twice as many.
        hidden: The width of the hidden fully connected layer.
    """
    return glorot(conv_encoder(shape, 1, filters, hidden, normalised=False))


def patch_discriminator(shape: ImageShape, filters: int) -> nn.Sequential:
    """Build a discriminator of patches, [B, C, H, W] → [B, 1, H / 2^s, W / 2^s], with spectral norm.

    PatchGAN (https://arxiv.org/abs/1611.07004, appendix 6.1.2) with fewer layers: s convolutions that halve the
    sides, as many as `count_stages` says for "auto", and two that do not.

    Args:
        shape: Channels, height and width of an image.
        filters: The channels of the first convolution; the next two halvings double them.
    """
    stages = count_stages(shape, "auto")
    widths = [shape[0], *(filters * 2 ** min(stage, 2) for stage in range(stages))]
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    last = widths[-1]
    layers += [nn.Conv2d(last, 2 * last, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(2 * last, 1, 3, padding=1)]
    return nn.Sequential(
        *(parametrizations.spectral_norm(layer) if isinstance(layer, nn.Conv2d) else layer for layer in layers)
    )


def mlp_encoder(shape: ImageShape, latent_dim: int, hidden: int, layers: int) -> nn.Sequential:
    """Build MaskAAE's encoder for MNIST, [B, C, H, W] → [B, m]: an `mlp` of the flattened image.

    Args:
        shape: Channels, height and width of an image.
        latent_dim: m, the width of the output.
        hidden: The width of each hidden layer.
        layers: The number of hidden layers.
    """
    return nn.Sequential(nn.Flatten(), *mlp(math.prod(shape), latent_dim, hidden, layers))


def mlp_decoder(shape: ImageShape, latent_dim: int, hidden: int, layers: int) -> nn.Sequential:
    """Build MaskAAE's decoder for MNIST, [B, m] → [B, C, H, W] in (0, 1): an `mlp` and a sigmoid.

    Args:
        shape: Channels, height and width of an image.
        latent_dim: m, the width of the input.
        hidden: The width of each hidden layer.
        layers: The number of hidden layers.
    """
    stack = mlp(latent_dim, math.prod(shape), hidden, layers)
    return nn.Sequential(*stack, Sigmoid(), nn.Unflatten(1, shape))


def mlp(
    inputs: int, outputs: int, hidden: int, layers: int, *, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Build fully connected layers, [B, inputs] → [B, outputs]. The initial weights are Glorot-normal.

    Args:
        inputs: The width of the input.
        outputs: The width of the output, which no activation follows.
        hidden: The width of each hidden layer.
        layers: The number of hidden layers.
        activation: Makes the module that follows each hidden layer.
    """
    stack: list[nn.Module] = []
    for _ in range(layers):
        stack += [nn.Linear(inputs, hidden), activation()]
        inputs = hidden
    return glorot(nn.Sequential(*stack, nn.Linear(inputs, outputs)))


def glorot(module: Module) -> Module:
    """Draw every weight Glorot-normal and set every bias to 0, in place. Return the module."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def _activation(batch_norm: type[BatchNorm1d | BatchNorm2d], features: int, normalised: bool) -> list[nn.Module]:
    return [batch_norm(features, momentum=NORM_MOMENTUM, eps=_NORM_EPSILON), nn.ReLU()] if normalised else [nn.ReLU()]


def _transposed(inputs: int, outputs: int) -> list[nn.Module]:
    """Return layers that double the sides of features, as published."""
    return [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)]


def _enlarged(inputs: int, outputs: int) -> list[nn.Module]:
    """Return layers that double the sides of features and leave no pattern of squares."""
    return [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1)]


def count_stages(shape: ImageShape, stages: Stages) -> int:
    """Return how many times convolutions halve the sides of an image.

    Args:
        shape: Channels, height and width of the image.
        stages: The number, or "auto" for as many as leave at least 7 pixels a side, and at least one.
    """
    if stages != "auto":
        return stages
    count = 1
    while all(side % 2 ** (count + 1) == 0 and side >= 7 * 2 ** (count + 1) for side in shape[1:]):
        count += 1
    return count


def _smallest(shape: ImageShape, filters: int, stages: int) -> tuple[int, int, int]:
    """Return the shape of the features of an image after all convolutions."""
    _, height, width = shape
    scale = 2**stages
    if height % scale or width % scale:
        raise InvalidInput("image", f"{height} × {width} pixels: height and width must be multiples of {scale}")
    return filters * 2 ** (stages - 1), height // scale, width // scale
