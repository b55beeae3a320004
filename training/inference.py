"""Run a trained model on numpy arrays, with pixels as in its bundle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rae_serve import noise
from rae_serve.arrays import Latents, Pixels
from training.autoencoder import Autoencoder
from training.data.batches import Index, Rows, to_pixels, to_tensor

_ENCODED: Final = 1000  # images that are encoded at once
_DECODED: Final = 250  # images that are decoded at once


class Inference:
    """A model in evaluation mode on a device. Row i of a seed is the same image as from the exported bundle.

    Every method puts the model into evaluation mode and leaves torch's random state alone.
    """

    def __init__(self, model: Autoencoder, device: torch.device) -> None:
        self.model = model
        self.device = device

    def rows(self, images: Pixels, index: Index) -> Rows:
        """Return what the encoder says about images: the model's `rows`, float32 [len(index), D].

        Args:
            images: uint8 [N, H, W, C].
            index: The positions of the images to encode.
        """
        pieces = (images[index[start : start + _ENCODED]] for start in range(0, len(index), _ENCODED))
        return np.concatenate([self._run(self.model.rows, piece) for piece in pieces])

    def encode(self, images: Pixels) -> Latents:
        """Return the latents [N, m] of images, uint8 [N, H, W, C]."""
        return self._in_pieces(self.model.encode, images, _ENCODED)

    def decode(self, latents: Latents) -> Pixels:
        """Return the images, uint8 [N, H, W, C], of latents [N, m]."""
        return self._in_pieces(lambda z: to_pixels(self.model.decode(z)), latents, _DECODED)

    def reconstruct(self, images: Pixels) -> Pixels:
        """Return images, uint8 [N, H, W, C], encoded and decoded."""
        return self._in_pieces(lambda x: to_pixels(self.model.decode(self.model.encode(x))), images, _DECODED)

    def latents(self, count: int, seed: int) -> Latents:
        """Return the prior's latents of rows 0 … count − 1 of a seed."""
        rows = noise.normals(seed, 0, count, self.model.sampler.noise_dim)
        return self._in_pieces(self.model.sampler, rows, _ENCODED)

    @torch.no_grad()
    def matched(self, images: Pixels, index: Index) -> Tensor:
        """Return the latents of images that a prior must match, [len(index), m]; those of a VAE are drawn by seed 0.

        Args:
            images: uint8 [N, H, W, C].
            index: The positions of the images.
        """
        rows = to_tensor(self.rows(images, index), self.device)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.model.latents(rows)

    def sample(self, count: int, seed: int = 0) -> Pixels:
        """Return images, uint8 [count, H, W, C]: rows 0 … count − 1 of a seed."""
        return self.decode(self.latents(count, seed))

    def _in_pieces(self, graph: Callable[[Tensor], Tensor], rows: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
        pieces = (rows[start : start + size] for start in range(0, len(rows), size))
        return np.concatenate([self._run(graph, piece) for piece in pieces])

    @torch.no_grad()
    def _run(self, graph: Callable[[Tensor], Tensor], rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.model.eval()
        return graph(to_tensor(np.ascontiguousarray(rows), self.device)).cpu().contiguous().numpy()
