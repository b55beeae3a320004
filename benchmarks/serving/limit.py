"""Measure how many images per second the bare graphs of a bundle make on this machine, at best."""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

from benchmarks.serving.generator import Generator
from rae_serve import sessions

WAIT_SECONDS = 120  # the longest time to wait for the other lanes
_Runs = tuple[list[float], float]  # the time of each run, and the CPU time of all, in seconds


@dataclass(frozen=True)
class Point:
    """What some lanes, each with sessions of its own, make of batches of one size."""

    lanes: int
    threads: int
    batch: int
    images_per_s: float
    cpu_us: float
    """CPU time per image, in microseconds."""
    median_ms: float
    """The time of one run of prior and decoder."""


def measure(bundle: Path, device: str, seconds: float) -> list[Point]:
    """Measure all combinations of lanes, threads per session and batch size.

    A lane is a process that runs prior and decoder in a loop.

    Args:
        bundle: The folder of a bundle.
        device: Where its graphs run: cpu or cuda.
        seconds: How long to measure each combination.
    """
    batches = (1, 16, 64, *((256, 1024) if device == "cuda" else ()))
    return [
        point
        for lanes, threads in _combinations(device)
        for point in _measure_lanes(bundle, device, lanes, threads, batches, seconds)
    ]


def measure_again(bundle: Path, device: str, point: Point, seconds: float) -> float:
    """Return the images per second of a combination that was measured before.

    Args:
        bundle: The folder of the bundle.
        device: Where its graphs run: cpu or cuda.
        point: The combination.
        seconds: How long to measure it.
    """
    (again,) = _measure_lanes(bundle, device, point.lanes, point.threads, (point.batch,), seconds)
    return again.images_per_s


def _combinations(device: str) -> Iterator[tuple[int, int]]:
    if device == "cuda":
        yield from ((1, 1), (2, 1), (4, 1))
        return
    cores = sessions.available_cores()
    counts = sorted({cores, *(2**power for power in range(cores.bit_length()))})
    yield from ((lanes, threads) for lanes, threads in itertools.product(counts, counts) if lanes * threads <= cores)


def _measure_lanes(
    bundle: Path, device: str, lanes: int, threads: int, batches: Sequence[int], seconds: float
) -> list[Point]:
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    barrier, results = context.Barrier(lanes), context.Queue()
    given = (bundle, device, threads, batches, seconds, barrier, results)
    processes = [context.Process(target=_run_lane, args=given, daemon=True) for _ in range(lanes)]
    for process in processes:
        process.start()
    points = []
    for batch in batches:
        runs = [_runs(results.get(timeout=WAIT_SECONDS + seconds)) for _ in processes]
        points.append(
            Point(
                lanes,
                threads,
                batch,
                images_per_s=sum(batch * len(times) / sum(times) for times, _ in runs),
                cpu_us=sum(cpu for _, cpu in runs) * 1e6 / sum(batch * len(times) for times, _ in runs),
                median_ms=median(itertools.chain.from_iterable(times for times, _ in runs)) * 1e3,
            )
        )
    for process in processes:
        process.join()
    return points


def _runs(result: _Runs | str) -> _Runs:
    return sys.exit(result) if isinstance(result, str) else result


def _run_lane(
    bundle: Path,
    device: str,
    threads: int,
    batches: Sequence[int],
    seconds: float,
    barrier: Barrier,
    results: Queue[_Runs | str],
) -> None:
    """Put the times of all runs and the CPU time, in seconds, into `results` for each batch size, or an error.

    Args:
        bundle: The folder of the bundle.
        device: Where its graphs run.
        threads: The number of threads of each session.
        batches: The batch sizes, one after the other.
        seconds: How long to run each.
        barrier: Where the lanes wait, so that all run batches of the same size.
        results: Takes (times, CPU time), or the error of a machine that cannot run the graphs.
    """
    try:
        generator = Generator(bundle, device, threads)
    except SystemExit as error:
        results.put(str(error))
        return
    for batch in batches:
        noise = generator.noise(0, batch)
        generator.images(noise)
        barrier.wait(WAIT_SECONDS)
        times: list[float] = []
        before, end = time.process_time(), time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            began = time.perf_counter()
            generator.images(noise)
            times.append(time.perf_counter() - began)
        results.put((times, time.process_time() - before))
