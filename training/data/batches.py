"""Endless shuffled batches, and the conversion of images between uint8 arrays and float tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.distributed import ALONE, World

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

    def __next__(self) -> Tensor:
        epoch, k = divmod(self.drawn, len(self.index) // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.index)
        self.drawn += 1
        part = self.world.part(self.batch_size)
        rows = self.rows[self._order[k * self.batch_size : (k + 1) * self.batch_size][part]]
        if self.flip:
            # k + 1, because numpy treats the seed [seed, epoch, 0] as [seed, epoch], which draws the order.
            mirrored = np.random.default_rng([self.seed, epoch, k + 1]).random(self.batch_size)[part] < 0.5
            rows[mirrored] = rows[mirrored, :, ::-1]
        return to_tensor(rows, self.device)

    def whole(self) -> Batches:
        """Return the batches that come next, undivided."""
        batches = Batches(self.rows, self.index, self.batch_size, self.seed, self.device, flip=self.flip)
        batches.drawn = self.drawn
        return batches


def to_tensor(rows: Rows, device: torch.device) -> Tensor:
    """Convert uint8 [N, H, W, C] to float32 [N, C, H, W] in [0, 1]. Keep the type and shape of other rows."""
    tensor = torch.from_numpy(rows).to(device)
    if tensor.dtype == torch.uint8:
        tensor = tensor.permute(0, 3, 1, 2).contiguous().float().div_(255.0)
    return tensor


def to_pixels(x: Tensor) -> Tensor:
    """Convert float [N, C, H, W] to uint8 [N, H, W, C]: clip to [0, 1], then round to the nearest, halves up.

    WebGPU can neither round half to even nor permute uint8, so the exported graphs do neither.
    """
    return ((x * 255.0).clamp(0.0, 255.0) + 0.5).floor().permute(0, 2, 3, 1).to(torch.uint8)
