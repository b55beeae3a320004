"""Endless batches of rows, and pixels to tensors and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Index = npt.NDArray[np.int64]


class Batches(Iterator[Tensor]):
    """Endless shuffled batches of the rows at `index`. Batch k is a function of (seed, k): `drawn` is all its state.

    Every epoch has its own order and leaves out the rows that fill no whole batch. uint8 images [N, H, W, C]
    come as float32 [B, C, H, W] in [0, 1], each with even odds mirrored left to right where `flip` says so; other
    rows come as they are.
    """

    def __init__(
        self,
        rows: npt.NDArray[Any],
        index: Index,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        flip: bool = False,
    ) -> None:
        self.rows = rows
        self.index = index
        self.batch_size = min(batch_size, len(index))
        self.seed = seed
        self.device = device
        self.flip = flip
        self.drawn = 0
        self._epoch = -1
        self._order = index

    def __next__(self) -> Tensor:
        epoch, k = divmod(self.drawn, len(self.index) // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.index)
        self.drawn += 1
        rows = self.rows[self._order[k * self.batch_size : (k + 1) * self.batch_size]]
        if self.flip:
            # k + 1: numpy takes [seed, epoch, 0] for [seed, epoch], which the order is drawn by.
            mirrored = np.random.default_rng([self.seed, epoch, k + 1]).random(len(rows)) < 0.5
            rows[mirrored] = rows[mirrored, :, ::-1]
        return to_tensor(rows, self.device)


def to_tensor(rows: npt.NDArray[Any], device: torch.device) -> Tensor:
    """uint8 [N, H, W, C] → float32 [N, C, H, W] in [0, 1]; anything else as it is."""
    tensor = torch.from_numpy(rows).to(device)
    if tensor.dtype == torch.uint8:
        tensor = tensor.permute(0, 3, 1, 2).contiguous().float().div_(255.0)
    return tensor


def to_pixels(x: Tensor) -> Tensor:
    """float [N, C, H, W] in [0, 1] → uint8 [N, H, W, C]: clipped, then rounded half to even."""
    return (x * 255.0).clamp(0.0, 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)
