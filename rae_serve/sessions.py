"""ONNX Runtime sessions: choose a device and a number of threads, and run a graph."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from rae_serve.errors import BundleError, RaeServeError

log = logging.getLogger(__name__)

_CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")  # microseconds of CPU time, and of the period that they are for

Device = Literal["auto", "cpu", "cuda"]
Hardware = Literal["cpu", "cuda"]  # where a Device runs on this machine
Rows = npt.NDArray[Any]  # [N, …]


class Graph:
    """An ONNX session of a graph with one input and one output: N rows in, N rows out.

    On CUDA, cuDNN selects its algorithms again for every new shape. So every batch is padded to one of a few sizes,
    and each size runs once in advance. On the CPU, a batch runs as it is.

    Args:
        model: The ONNX file.
        device: Where to run.
        device_id: Index of the CUDA device; unused on the CPU.
        threads: Threads of the CPU that one run uses; 0 means one per core. The result has the same bits for all.
        sizes: Batch sizes on CUDA, in ascending order; the last is the largest batch. Unused on the CPU.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
        RaeServeError: CUDA is requested and ONNX Runtime cannot use it.
    """

    def __init__(
        self, model: bytes, device: Hardware, *, device_id: int = 0, threads: int = 0, sizes: Sequence[int] = ()
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin would start the next operator a little sooner on an idle machine. But they take the time
        # of HTTP and of other work, so that a lone request takes several times as long on a busy one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=_providers(device, device_id))
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise BundleError(f"ONNX Runtime cannot load a graph of the bundle: {error}") from None
        provider = self._session.get_providers()[0]
        if device == "cuda" and provider != "CUDAExecutionProvider":
            # ONNX Runtime falls back to the CPU without an error.
            raise RaeServeError(
                f"CUDA was asked for, but ONNX Runtime chose {provider}; install its CUDA libraries, or use cpu"
            )
        self._input = self._session.get_inputs()[0]
        self._fixed = [FixedBatch(self._session, size, device, device_id) for size in sizes if device == "cuda"]
        if not self._fixed:
            self(_zeros(self._input, 1))  # the first run of a session takes longer

    def __call__(self, rows: Rows) -> Rows:
        """Run the graph on some rows; on CUDA, at most as many as the largest of `sizes`."""
        for batch in self._fixed:
            if len(rows) <= batch.size:
                return batch(rows)
        result: Rows = self._session.run(None, {self._input.name: rows})[0]
        return result


class FixedBatch:
    """Runs a session on batches of one size, with buffers that stay on the device; one run at a time.

    The constructor runs it once, so that later runs find the algorithms already selected.
    """

    def __init__(self, session: onnxruntime.InferenceSession, size: int, device: Hardware, device_id: int) -> None:
        self.size = size
        self._session = session
        self._lock = threading.Lock()
        source, target = session.get_inputs()[0], session.get_outputs()[0]
        self._rows = _zeros(source, size)
        self._source = onnxruntime.OrtValue.ortvalue_from_numpy(self._rows, device, device_id)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(source.name, self._source)
        self._binding.bind_output(target.name, device, device_id)
        self(self._rows)

    def __call__(self, rows: Rows) -> Rows:
        """Run the graph on at most `size` rows."""
        with self._lock:
            self._rows[: len(rows)] = rows
            self._source.update_inplace(self._rows)
            self._session.run_with_iobinding(self._binding)
            result: Rows = self._binding.copy_outputs_to_cpu()[0]
        return result[: len(rows)]


class Sessions:
    """Opens the graphs of an engine.

    On several CPU cores, two batches side by side, on half of the cores each, take less time than one after the other
    on all cores. A lone request is faster on all cores. A session has a fixed number of threads, so there are two
    sessions for each graph, and the weights are in memory twice.

    Args:
        device: Where to run.
        device_id: Index of the CUDA device; unused on the CPU.
        threads: CPU cores that a graph may use; 0 means all that the process may use.
        engines: How many engines have these cores. Batches side by side keep to the share of this one; a lone
            request does not.
        max_batch: The largest batch.
        is_lone_request: Told the number of rows of a batch, returns whether they are one whole request and no other
            request is in flight.
    """

    def __init__(
        self,
        device: Hardware,
        *,
        device_id: int,
        threads: int,
        engines: int,
        max_batch: int,
        is_lone_request: Callable[[int], bool],
    ) -> None:
        self._device = device
        self._device_id = device_id
        self._threads = threads or available_cores()
        self._sizes = fixed_sizes(max_batch)
        self._is_lone_request = is_lone_request
        self._share = max(1, self._threads // engines)
        self.batches_at_once = 2 if device == "cpu" and self._share > 1 else 1

    def open(self, model: bytes) -> Callable[[Rows], Rows]:
        """Load an ONNX file and return the function that runs it."""
        if self._device == "cuda" or self._threads == 1:
            return Graph(model, self._device, device_id=self._device_id, threads=self._threads, sizes=self._sizes)
        some, all_cores = self._share // self.batches_at_once, self._threads
        shared, lone = (Graph(model, "cpu", threads=threads) for threads in (some, all_cores))
        return lambda rows: (lone if self._is_lone_request(len(rows)) else shared)(rows)


def fixed_sizes(max_batch: int) -> tuple[int, ...]:
    """Return the batch sizes 1, 4, 16, … and `max_batch`: at most three quarters of a batch are padding."""
    sizes = [1]
    while sizes[-1] * 4 < max_batch:
        sizes.append(sizes[-1] * 4)
    return (*sizes, max_batch) if max_batch > 1 else (1,)


def choose_hardware(device: Device, model: bytes, device_id: int) -> Hardware:
    """Choose where to run: "auto" is CUDA if a graph of the bundle can really run there, else the CPU.

    Args:
        device: What the user asks for.
        model: An ONNX file, to try CUDA with.
        device_id: Index of the CUDA device.

    Raises:
        RaeServeError: CUDA is requested and ONNX Runtime has no CUDA.
    """
    hardware = resolve(device)
    if device == "auto" and hardware == "cuda":
        try:
            Graph(model, hardware, device_id=device_id, threads=1, sizes=(1,))
        except RaeServeError as error:
            log.warning("there is a CUDA device that cannot be used, so the CPU is used: %s", error)
            return "cpu"
    return hardware


def resolve(device: Device) -> Hardware:
    """Return where `device` runs, judging by what is installed. "auto" is CUDA if there is a device and a provider.

    Raises:
        RaeServeError: CUDA is requested and ONNX Runtime has no CUDA.
    """
    if device == "auto":
        return "cuda" if cuda_memories() and _has_cuda_provider() else "cpu"
    if device == "cuda" and not _has_cuda_provider():
        raise RaeServeError("CUDA was asked for, but this ONNX Runtime has no CUDA; install onnxruntime-gpu")
    return device


def cuda_memories() -> list[int]:
    """Return the bytes of memory of each device that the CUDA driver shows; an empty list without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    memories = []
    for index in range(count.value):
        device, size = ctypes.c_int(0), ctypes.c_size_t(0)
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        memories.append(size.value)
    return memories


def available_cores() -> int:
    """Return how many CPU cores this process may use: all, or what its affinity or its container allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
    except (OSError, ValueError):  # no Linux, or no cgroup version 2
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def _zeros(source: onnxruntime.NodeArg, size: int) -> Rows:
    """Return `size` rows of zeros for an input of a graph."""
    return np.zeros((size, *source.shape[1:]), np.uint8 if source.type == "tensor(uint8)" else np.float32)


def _providers(device: Hardware, device_id: int) -> Sequence[str | tuple[str, dict[str, str]]]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if hasattr(onnxruntime, "preload_dlls"):  # since version 1.21; loads CUDA's libraries from their Python packages
        onnxruntime.preload_dlls()
    # TF32 rounds more coarsely: pixels would differ from the CPU's.
    cuda = {"device_id": str(device_id), "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def _has_cuda_provider() -> bool:
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
