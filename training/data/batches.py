"""Endless shuffled batches, and the conversion of images between uint8 arrays and float tensors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.distributed import ALONE, World

_PIECE: Final = 4096  # rows that are copied to a device at once

Index = npt.NDArray[np.int64]  # positions of rows in an array
Rows = npt.NDArray[np.generic]  # images, uint8 [N, H, W, C], or other rows of any type, such as latents [N, m]


class Batches(Iterator[Tensor]):
    """Endless shuffled batches of some rows of an array.

    Batch k is a function of the seed and k alone. So `drawn`, the number of batches drawn, is the whole state, and
    a resumed run sets it. Every epoch has its own order and omits the rows that do not fill a whole batch.

    Args:
        rows: Images, uint8 [N, H, W, C], which come as float32 [B, C, H, W] in [0, 1]. Rows of another type come
            unchanged.
        index: The rows to draw from.
        batch_size: B. At most all rows of the index make a batch.
        seed: The seed of the order and of the mirroring.
        device: The device of the batches.
        flip: Whether to mirror each image left to right with probability ½.
        world: The processes that share each batch: each draws its own rows of it.

    On CUDA, the rows are copied to the device once, if they take at most half of its free memory.
    """

    def __init__(
        self,
        rows: Rows,
        index: Index,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        flip: bool = False,
        world: World = ALONE,
    ) -> None:
        self.rows = rows
        self.index = index
        self.batch_size = min(batch_size, len(index))
        self.seed = seed
        self.device = device
        self.flip = flip
        self.world = world
        self.drawn = 0
        self._epoch = -1
        self._order = index
        self._on_device = _copied(rows, device) if _fits(rows, device) else None

    def __next__(self) -> Tensor:
        epoch, k = divmod(self.drawn, len(self.index) // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.index)
        self.drawn += 1
        part = self.world.part(self.batch_size)
        chosen = self._order[k * self.batch_size : (k + 1) * self.batch_size][part]
        if self._on_device is None:
            rows = torch.from_numpy(self.rows[chosen]).to(self.device)
        else:
            rows = self._on_device[torch.from_numpy(chosen).to(self.device)]
        if self.flip:
            # k + 1, because numpy treats the seed [seed, epoch, 0] as [seed, epoch], which draws the order.
            mirrored = np.random.default_rng([self.seed, epoch, k + 1]).random(self.batch_size)[part] < 0.5
            rows = torch.where(torch.from_numpy(mirrored).to(self.device)[:, None, None, None], rows.flip(2), rows)
        return _scaled(rows)

    def whole(self) -> Batches:
        """Return the batches that come next, undivided."""
        batches = copy.copy(self)
        batches.world = ALONE
        return batches


def to_tensor(rows: Rows, device: torch.device) -> Tensor:
    """Convert uint8 [N, H, W, C] to float32 [N, C, H, W] in [0, 1]. Keep the type and shape of other rows."""
    return _scaled(torch.from_numpy(rows).to(device))


def _scaled(rows: Tensor) -> Tensor:
    """Convert uint8 [N, H, W, C] to float32 [N, C, H, W] in [0, 1]. Keep the type and shape of other rows."""
    return rows.permute(0, 3, 1, 2).contiguous().float().div_(255.0) if rows.dtype == torch.uint8 else rows


def _fits(rows: Rows, device: torch.device) -> bool:
    """Return whether a device has memory of its own, and twice as much of it free as the rows take."""
    return device.type == "cuda" and 2 * rows.nbytes <= torch.cuda.mem_get_info(device)[0]


def _copied(rows: Rows, device: torch.device) -> Tensor:
    """Copy rows to a device, in pieces, because they may be mapped from a file that is larger than the memory."""
    on_device = torch.empty(rows.shape, dtype=torch.from_numpy(rows[:0].copy()).dtype, device=device)
    for start in range(0, len(rows), _PIECE):
        on_device[start : start + _PIECE] = torch.from_numpy(rows[start : start + _PIECE].copy())
    return on_device


def to_pixels(x: Tensor) -> Tensor:
    """Convert float [N, C, H, W] to uint8 [N, H, W, C]: clip to [0, 1], then round to the nearest, halves up.

    WebGPU can neither round half to even nor permute uint8, so the exported graphs do neither.
    """
    return ((x * 255.0).clamp(0.0, 255.0) + 0.5).floor().permute(0, 2, 3, 1).to(torch.uint8)
