"""Placement: how many worker processes a server has, and the device, the cores and the queue of each."""

from __future__ import annotations

from typing import Final, NamedTuple

from rae_serve import sessions
from rae_serve.server.settings import Settings

# HTTP and PNG take about as long as the graphs of a light model, and Python uses one core for them. With a GPU they
# take nearly all of the time.
_CPU_WORKERS: Final = 8
_CORES_PER_GPU_WORKER: Final = 2
_GPU_BYTES_PER_WORKER: Final = 4 * 1024**3  # a CUDA context, the weights, and the memory that a batch needs
_WORKERS_PER_GPU: Final = 8


class Place(NamedTuple):
    """The share of a worker.

    Attributes:
        device_id: Index of its CUDA device.
        threads: CPU cores that one of its batches may use.
        engines: How many workers have these cores.
        max_waiting: How many rows may wait for one of its graphs.
    """

    device_id: int
    threads: int
    engines: int
    max_waiting: int


def worker_count(settings: Settings) -> int:
    """Return the number of worker processes of a server.

    Raises:
        RaeServeError: The settings ask for CUDA and ONNX Runtime has no CUDA.
    """
    if settings.workers != "auto":
        return settings.workers
    cores = sessions.available_cores()
    if sessions.resolve(settings.device) == "cpu":
        return min(cores, _CPU_WORKERS)
    memories = sessions.cuda_memories()
    by_memory = min(memories) // _GPU_BYTES_PER_WORKER
    by_cores = cores // len(memories) // _CORES_PER_GPU_WORKER
    return len(memories) * max(1, min(by_memory, by_cores, _WORKERS_PER_GPU))


def place(settings: Settings, worker: int) -> Place:
    """Return the share of a worker. All workers together keep to the settings.

    Args:
        settings: The settings of the server.
        worker: The number of the worker, from 0. Workers take the GPUs in turn.
    """
    workers = worker_count(settings)
    return Place(
        device_id=worker % max(1, len(sessions.cuda_memories())),
        threads=settings.threads or sessions.available_cores(),
        engines=1 if settings.threads else workers,
        max_waiting=max(1, settings.max_waiting // workers),
    )
