"""A bundle at work: numpy in, numpy out, on ONNX Runtime."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from rae_serve import noise
from rae_serve.batching import MicroBatcher
from rae_serve.bundle import GRAPHS, Bundle
from rae_serve.errors import InvalidInput, RaeServeError
from rae_serve.images import Pixels

Latents = npt.NDArray[np.float32]  # [N, latent_dim]
Device = Literal["auto", "cpu", "cuda"]

MAX_TEMPERATURE = 10.0
_MAX_MAGNITUDE = 1e6  # of a latent or noise: far beyond any code, far below float32's overflow in a graph


class Engine:
    """Samples, decodes and encodes with one bundle; safe to call from many threads, which share batches.

    `device` "auto" takes the first CUDA device where the driver shows one, else the CPU; "cuda" raises
    RaeServeError where CUDA is not really used. `threads` are those of one graph's run; 0 lets ONNX Runtime
    choose. The pixels are the same bits whatever runs beside them. A graph runs at most `max_batch` rows at
    once, and raises Overloaded where `max_waiting` rows wait for it already.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        threads: int = 0,
        max_batch: int = 64,
        max_waiting: int = 65536,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.device = _resolve(device)
        self._graphs = {
            name: MicroBatcher(
                _Graph(bundle.graph(name), self.device, threads), max_rows=max_batch, max_waiting=max_waiting
            )
            for name in GRAPHS
        }

    def noise(self, n: int, *, seed: int, offset: int = 0, temperature: float = 1.0) -> Latents:
        """Rows offset … offset + n − 1 of a seed's noise, float32 [n, noise_dim]; gaussian columns × temperature."""
        if noise.integer("n", n) < 1:
            raise InvalidInput("n", f"must be at least 1, not {n}")
        if not 0 <= temperature <= MAX_TEMPERATURE:
            raise InvalidInput("temperature", f"must be from 0 to {MAX_TEMPERATURE:g}, not {temperature}")
        rows = noise.normals(seed, offset, n, self.manifest.noise.dim)
        if temperature != 1.0:
            gaussian = [i for i, role in enumerate(self.manifest.noise.roles) if role == "gaussian"]
            rows[:, gaussian] *= np.float32(temperature)
        return rows

    def sample(self, n: int = 1, *, seed: int, offset: int = 0, temperature: float = 1.0) -> Pixels:
        """Generated images, uint8 [n, H, W, C]: row i of seed s is the same image always."""
        return self.decode(self.latents(self.noise(n, seed=seed, offset=offset, temperature=temperature)))

    def latents(self, noise: npt.ArrayLike) -> Latents:
        """The prior: noise [N, noise_dim] → latents [N, latent_dim]."""
        return self._graphs["prior"](_finite("noise", noise, self.manifest.noise.dim))

    def decode(self, latents: npt.ArrayLike) -> Pixels:
        """Latents [N, latent_dim] → images, uint8 [N, H, W, C]."""
        return self._graphs["decoder"](_finite("latents", latents, self.manifest.latent.dim))

    def encode(self, images: npt.ArrayLike) -> Latents:
        """Images, uint8 [N, H, W, C], preprocessed already → latents [N, latent_dim]."""
        pixels = np.asarray(images)
        shape = self.manifest.image.shape
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape or len(pixels) < 1:
            raise InvalidInput("images", f"must be uint8 {_shape(shape)}, not {pixels.dtype} {list(pixels.shape)}")
        return self._graphs["encoder"](pixels)

    def reconstruct(self, images: npt.ArrayLike) -> Pixels:
        """Images, uint8 [N, H, W, C], encoded and decoded again."""
        return self.decode(self.encode(images))

    def close(self) -> None:
        """End the batching threads, after what waits is done."""
        for graph in self._graphs.values():
            graph.close()


class _Graph:
    """One ONNX session with one input and one output."""

    def __init__(self, model: bytes, device: Literal["cpu", "cuda"], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Spinning threads are quick to wake, and take a core from everything else on the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(model, options, providers=_providers(device))
        used = self._session.get_providers()
        if device == "cuda" and used[0] != "CUDAExecutionProvider":
            # ONNX Runtime falls back to the CPU without an error.
            raise RaeServeError(f"CUDA was asked for and cannot be used; ONNX Runtime took {used[0]}")
        self._input = self._session.get_inputs()[0].name

    def __call__(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result: npt.NDArray[Any] = self._session.run(None, {self._input: rows})[0]
        return result


def _providers(device: Literal["cpu", "cuda"]) -> Sequence[str | tuple[str, dict[str, str]]]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21: CUDA's libraries from their Python packages
        onnxruntime.preload_dlls()
    # TF32 would round pixels away from the CPU's.
    cuda = {"device_id": "0", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def _resolve(device: Device) -> Literal["cpu", "cuda"]:
    if device == "auto":
        return "cuda" if _cuda_devices() and _has_cuda_provider() else "cpu"
    if device == "cuda" and not _has_cuda_provider():
        raise RaeServeError("CUDA was asked for, and this ONNX Runtime has none: install onnxruntime-gpu")
    return device


def _has_cuda_provider() -> bool:
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _cuda_devices() -> int:
    """How many devices the CUDA driver shows; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _finite(field: str, rows: npt.ArrayLike, dim: int) -> Latents:
    try:
        array = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError):
        raise InvalidInput(field, f"must be numbers of shape {_shape((dim,))}") from None
    if array.ndim != 2 or array.shape[1] != dim or len(array) < 1:
        raise InvalidInput(field, f"must have shape {_shape((dim,))}, not {list(array.shape)}")
    if not (np.abs(array) <= _MAX_MAGNITUDE).all():
        raise InvalidInput(field, f"must be finite numbers within ±{_MAX_MAGNITUDE:g}")
    return array


def _shape(shape: Sequence[int]) -> str:
    return f"[N, {', '.join(map(str, shape))}]"
