"""A perceptual distance between images: how far apart the features of a network are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rae_serve.errors import InvalidInput
from training.evaluation.features.cifar10_network import SIDE, Cifar10Network

NetworkName = Literal["cifar10", "vgg16", "alexnet"]

# The ReLUs whose outputs are compared: all four of our own network; those of LPIPS for the others.
LAYERS: Final[dict[NetworkName, tuple[int, ...]]] = {
    "cifar10": (2, 5, 9, 13),
    "vgg16": (3, 8, 15, 22, 29),
    "alexnet": (1, 4, 7, 9, 11),
}
# The mean and the standard deviation of ImageNet's channels, by which torchvision's networks want images normalised.
_IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
_IMAGENET_STD: Final = (0.229, 0.224, 0.225)
_LEAST_LENGTH: Final = 1e-10  # of features, where one divides by it
_LEAST_SIDE: Final[dict[NetworkName, int]] = {"cifar10": SIDE, "vgg16": 32, "alexnet": 64}


class PerceptualDistance:
    """A distance between images on the layers of a network.

    LPIPS without its learned weights (https://arxiv.org/abs/1801.03924, equation 1, with w = 1): the features of each
    layer are divided by their length over the channels; the squared differences are summed over channels and averaged
    over places; the layers are summed. It is no module, so that its network is in no checkpoint.

    Args:
        network: "cifar10", which comes with this package, or a network of torchvision.
        weights: A file with the state of torchvision's network; None lets torchvision load it, from its cache or the
            internet. "cifar10" has no such file.

    Raises:
        InvalidInput: The weights cannot be loaded, or belong to another network.
    """

    def __init__(self, network: NetworkName, weights: Path | None = None) -> None:
        features = _load(network, weights).eval().requires_grad_(False)
        layers = LAYERS[network]
        parts = [features[start + 1 : end + 1] for start, end in zip((-1, *layers), layers, strict=False)]
        self._parts = [_prepared(part).to(memory_format=torch.channels_last) for part in parts]
        self._least_side = _LEAST_SIDE[network]
        self._imagenet = network != "cifar10"

    def __call__(self, reconstruction: Tensor, x: Tensor) -> Tensor:
        """Return the distance, averaged over the batch.

        Args:
            reconstruction: Images [B, C, H, W] in [0, 1], with 1 or 3 channels.
            x: The images to compare with, of the same shape; they get no gradient.
        """
        with torch.no_grad():
            targets = [_directions(features) for features in self._features(x)]
        distances = [_distance(*pair) for pair in zip(self._features(reconstruction), targets, strict=True)]
        return torch.stack(distances).sum()

    def _features(self, x: Tensor) -> list[Tensor]:
        """Return the features of each layer, [B, C, H, W]."""
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        if (side := min(x.shape[2:])) < self._least_side:
            x = interpolate(x, scale_factor=self._least_side / side, mode="bilinear", align_corners=False)
        if self._imagenet:
            mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (_IMAGENET_MEAN, _IMAGENET_STD))
            x = (x - mean) / std
        found = []
        for part in self._parts:
            x = part.to(x.device)(x)
            found.append(x)
        return found


def _directions(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return features [B, C, H, W] divided by their length over the channels, and where that is not 0, [B, H, W]."""
    length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / length.clamp(min=_LEAST_LENGTH), (length[:, 0] > 0).float()


def _distance(features: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
    """Return the squared distance of features, divided by their length, to directions; the mean over all places.

    It is |a|² + |b|² − 2⟨a, b⟩, in which the first two are 1, or 0 where there is no direction: fewer passes over the
    features than their difference takes.
    """
    direction, has_direction = target
    length = torch.linalg.vector_norm(features, dim=1)
    product = (features * direction).sum(dim=1)
    cosine = product / length.clamp(min=_LEAST_LENGTH)
    return ((length > 0).float() + has_direction - 2.0 * cosine).mean()


def _prepared(layers: nn.Sequential) -> nn.Sequential:
    """Return layers with average pools, and with batch norms merged into the convolutions."""
    prepared: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            before = prepared.pop()
            assert isinstance(before, nn.Conv2d)
            prepared.append(fuse_conv_bn_eval(before, layer))
        elif isinstance(layer, nn.MaxPool2d):
            prepared.append(nn.AvgPool2d(layer.kernel_size, layer.stride))
        else:
            prepared.append(layer)
    return nn.Sequential(*prepared)


def _load(network: NetworkName, weights: Path | None) -> nn.Sequential:
    if network == "cifar10":
        if weights:
            raise InvalidInput("perceptual_weights", "belongs to vgg16 and alexnet; cifar10 comes with its own")
        return Cifar10Network.load().features
    from torchvision import models

    build: Callable[..., Any] = getattr(models, network)
    try:
        if weights is None:
            downloaded: nn.Sequential = build(weights="IMAGENET1K_V1").features
            return downloaded
        features: nn.Sequential = build().features
        state = torch.load(weights, weights_only=True)
        prefix = "features."
        features.load_state_dict({key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)})
    except Exception as error:  # of many types: of the network, of pickle, of torch
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        problem = f"{weights or 'the download'} does not give the state of torchvision's {network} ({reason})"
        raise InvalidInput("perceptual_weights", f"{problem}; name its file") from None
    return features
