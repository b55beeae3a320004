"""Generate images by the graphs of a bundle on bare ONNX Runtime, for every peer of the service."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

Noise = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


class Generator:
    """Prior and decoder of a bundle.

    Args:
        bundle: The folder of the bundle.
        device: Where the graphs run: cpu or cuda.
        threads: The number of threads of each graph; 0 leaves it to ONNX Runtime.
    """

    def __init__(self, bundle: Path, device: str, threads: int = 0) -> None:
        self.cuda = device == "cuda"
        if self.cuda:
            onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Otherwise idle threads would keep the cores busy that the peers' HTTP needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")

        def session(name: str) -> onnxruntime.InferenceSession:
            # The options of the service. TF32 would be another precision.
            cuda = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"})
            providers = [*([cuda] if self.cuda else []), "CPUExecutionProvider"]
            made = onnxruntime.InferenceSession(str(bundle / f"{name}.onnx"), options, providers=providers)
            if self.cuda and made.get_providers()[0] != cuda[0]:
                raise SystemExit("ONNX Runtime cannot use CUDA on this machine")
            return made

        self.prior, self.decoder = session("prior"), session("decoder")
        self.noise_dim = self.prior.get_inputs()[0].shape[1]

    @classmethod
    def from_environment(cls, threads: int = 0) -> Self:
        """Load the bundle at BENCH_BUNDLE for the device BENCH_DEVICE."""
        return cls(Path(os.environ["BENCH_BUNDLE"]), os.environ["BENCH_DEVICE"], threads)

    def noise(self, seed: int, n: int) -> Noise:
        """Return noise, float32 [n, noise_dim], by numpy: faster than ours, and not the same on every machine."""
        return np.random.default_rng(seed).standard_normal((n, self.noise_dim), dtype=np.float32)

    def images(self, noise: Noise) -> Pixels:
        """Return the images of noise, uint8 [N, H, W, C]."""
        if self.cuda:
            return self._images_on_cuda(noise)
        (latent,) = self.prior.run(None, {"noise": noise})
        image: Pixels = self.decoder.run(None, {"latent": latent})[0]
        return image

    def files(self, requests: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return a PNG file for each request, a number of images and a seed; the graphs run once for all requests."""
        noises = [self.noise(seed, n) for n, seed in requests]
        ends = np.cumsum([len(noise) for noise in noises])
        return [png(images) for images in np.split(self.images(np.concatenate(noises)), ends[:-1])]

    def _images_on_cuda(self, noise: Noise) -> Pixels:
        # By IOBinding, so that the latents stay on the device.
        prior, decoder = self.prior.io_binding(), self.decoder.io_binding()
        prior.bind_cpu_input("noise", noise)
        prior.bind_output("latent", "cuda")
        self.prior.run_with_iobinding(prior)
        decoder.bind_ortvalue_input("latent", prior.get_outputs()[0])
        decoder.bind_output("image")
        self.decoder.run_with_iobinding(decoder)
        image: Pixels = decoder.copy_outputs_to_cpu()[0]
        return image


def png(images: Pixels) -> bytes:
    """Encode a nearly square grid of images [N, H, W, C], grey or RGB, as PNG by Pillow, at zlib level 1."""
    n, height, width, channels = images.shape
    columns = math.isqrt(n - 1) + 1
    rows = -(-n // columns)
    cells = np.zeros((rows * columns, height, width, channels), np.uint8)
    cells[:n] = images
    grid = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * height, columns * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(grid[..., 0] if channels == 1 else grid).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
