"""ONNX Runtime sessions: which device, how many threads, and one graph's run."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from rae_serve.errors import BundleError, RaeServeError

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Used = Literal["cpu", "cuda"]
Rows = npt.NDArray[Any]  # [N, …]


class Graph:
    """One ONNX session with one input and one output: rows in, as many rows out.

    On CUDA every batch is padded to one of `sizes`, each run once beforehand through buffers that stay on the
    device, since cuDNN chooses its algorithms anew for every shape it has not seen. On the CPU a batch runs
    as it is. `threads` never show in the bits.
    """

    def __init__(self, model: bytes, device: Used, *, device_id: int, threads: int, sizes: Sequence[int]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin between a run's operators spare a lone picture the time to wake them; after it, they would
        # take a core from everything else.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=_providers(device, device_id))
        except Exception as error:  # ONNX Runtime's own, which have no common base
            raise BundleError(f"ONNX Runtime cannot load a graph of the bundle: {error}") from None
        used = self._session.get_providers()
        if device == "cuda" and used[0] != "CUDAExecutionProvider":
            # ONNX Runtime falls back to the CPU without an error.
            raise RaeServeError(f"CUDA was asked for and cannot be used; ONNX Runtime took {used[0]}")
        self._input = self._session.get_inputs()[0]
        self._fixed = [FixedBatch(self._session, size, device, device_id) for size in sizes if device == "cuda"]
        if not self._fixed:
            self(_blank(self._input, 1))  # a session's first run takes longer

    def __call__(self, rows: Rows) -> Rows:
        """The graph of these rows; on CUDA at most as many as the largest of `sizes`."""
        for batch in self._fixed:
            if len(rows) <= batch.size:
                return batch(rows)
        result: Rows = self._session.run(None, {self._input.name: rows})[0]
        return result


class FixedBatch:
    """Runs of one batch size from and to buffers that stay on the device, one run at a time. The first warms up."""

    def __init__(self, session: onnxruntime.InferenceSession, size: int, device: Used, device_id: int) -> None:
        self.size = size
        self._session = session
        self._turn = threading.Lock()
        source, target = session.get_inputs()[0], session.get_outputs()[0]
        self._rows = _blank(source, size)
        self._source = onnxruntime.OrtValue.ortvalue_from_numpy(self._rows, device, device_id)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(source.name, self._source)
        self._binding.bind_output(target.name, device, device_id)
        self(self._rows)

    def __call__(self, rows: Rows) -> Rows:
        """The graph of at most `size` rows."""
        with self._turn:
            self._rows[: len(rows)] = rows
            self._source.update_inplace(self._rows)
            self._session.run_with_iobinding(self._binding)
            result: Rows = self._binding.copy_outputs_to_cpu()[0]
        return result[: len(rows)]


def fixed_sizes(max_batch: int) -> tuple[int, ...]:
    """1, 4, 16, … and `max_batch`: padding costs at most three rows of four."""
    sizes = [1]
    while sizes[-1] * 4 < max_batch:
        sizes.append(sizes[-1] * 4)
    return (*sizes, max_batch) if max_batch > 1 else (1,)


def usable(device: Device, model: bytes, device_id: int) -> Used:
    """The device that `device` means for a graph `model`: auto is CUDA where that can really be run there.

    Raises RaeServeError for CUDA that is not there.
    """
    used = resolve(device)
    if device == "auto" and used == "cuda":
        try:
            Graph(model, used, device_id=device_id, threads=1, sizes=(1,))
        except RaeServeError as error:
            log.warning("there is a CUDA device, and the CPU is taken: %s", error)
            return "cpu"
    return used


def resolve(device: Device) -> Used:
    """The device that `device` means by what is installed. Raises RaeServeError for CUDA that is not there."""
    if device == "auto":
        return "cuda" if cuda_devices() and _has_cuda_provider() else "cpu"
    if device == "cuda" and not _has_cuda_provider():
        raise RaeServeError("CUDA was asked for, and this ONNX Runtime has none: install onnxruntime-gpu")
    return device


def cuda_devices() -> int:
    """How many devices the CUDA driver shows; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _blank(source: onnxruntime.NodeArg, size: int) -> Rows:
    """So many rows of zeros for an input."""
    return np.zeros((size, *source.shape[1:]), np.uint8 if source.type == "tensor(uint8)" else np.float32)


def _providers(device: Used, device_id: int) -> Sequence[str | tuple[str, dict[str, str]]]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if hasattr(onnxruntime, "preload_dlls"):  # since 1.21: CUDA's libraries from their Python packages
        onnxruntime.preload_dlls()
    # TF32 would round pixels away from the CPU's.
    cuda = {"device_id": str(device_id), "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def _has_cuda_provider() -> bool:
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
