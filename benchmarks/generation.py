"""Measure `rae-serve generate` in every format against the limit of the machine.

    python -m benchmarks.generation BUNDLE [--seconds 10] [--rounds 3] [--device cuda]

The limit is the throughput of the bare graphs: ONNX Runtime runs prior and decoder in loops, on noise that is ready,
with the best number of lanes (loops side by side), threads of each lane, and batch size. `generate` includes loading
the model, and everything up to the list of shards on the disk. Every round measures everything again, because other
work on the machine affects all of it; ratios are of figures of the same round. The CPU time of an image is affected
less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple, get_args

from rae_serve import noise
from rae_serve.bundle import Bundle
from rae_serve.generation import generate
from rae_serve.sessions import Graph, Hardware, available_cores, choose_hardware
from rae_serve.shards import Format

BATCHES: dict[Hardware, tuple[int, ...]] = {"cpu": (16, 64, 256), "cuda": (64, 512, 2048)}
ROWS_PER_SHARD = 5000


class Figures(NamedTuple):
    """What one measurement says; tuples compare by the first, the rate."""

    rate: float  # images per second
    cpu_ms: float  # of all threads, per image


def bare_graphs(bundle: Bundle, hardware: Hardware, seconds: float) -> Figures:
    """Measure the bare graphs, and return the figures of the best lanes, threads and batch size.

    Args:
        bundle: The model.
        hardware: Where to run.
        seconds: How long to measure each combination.
    """
    cores = available_cores()
    divisions = [(2, 1)] if hardware == "cuda" else [(cores // n, n) for n in range(1, cores + 1) if cores % n == 0]
    return max(
        _rate(bundle, hardware, lanes, threads, batch, seconds)
        for lanes, threads in divisions
        for batch in BATCHES[hardware]
    )


def _rate(bundle: Bundle, hardware: Hardware, lanes: int, threads: int, batch: int, seconds: float) -> Figures:
    rows = noise.normals(0, 0, batch, bundle.manifest.noise.dim)

    def load() -> tuple[Graph, Graph]:
        prior, decoder = (
            Graph(bundle.graph(name), hardware, threads=threads, sizes=(batch,)) for name in ("prior", "decoder")
        )
        return prior, decoder

    pairs = [load() for _ in range(lanes)]
    end = time.perf_counter() + seconds

    def loop(pair: tuple[Graph, Graph]) -> int:
        prior, decoder = pair
        images = 0
        while time.perf_counter() < end:
            images += len(decoder(prior(rows)))
        return images

    def run() -> int:
        with ThreadPoolExecutor(lanes) as pool:
            return sum(pool.map(loop, pairs))

    return _measure(run)


def generated(bundle: Bundle, hardware: Hardware, format_: Format, images: int) -> Figures:
    """Measure `generate`, which writes this many images to a temporary folder."""

    def run() -> int:
        generate(
            bundle,
            Path(folder),
            seed=0,
            rows=range(images),
            format=format_,
            rows_per_shard=ROWS_PER_SHARD,
            device=hardware,
        )
        return images

    with tempfile.TemporaryDirectory() as folder:
        return _measure(run)


def _measure(run: Callable[[], int]) -> Figures:
    """Run a function that makes some images and returns how many."""
    began, cpu_began = time.perf_counter(), time.process_time()
    images = run()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return Figures(images / took, 1000.0 * cpu / images)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="the folder of the bundle")
    parser.add_argument("--seconds", type=float, default=10, help="about the time of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all measurements")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where all graphs run")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    hardware = choose_hardware(arguments.device, bundle.graph("prior"), 0)
    limits: list[Figures] = []
    generation: dict[Format, list[Figures]] = {format_: [] for format_ in get_args(Format)}
    for _ in range(arguments.rounds):
        limits.append(bare_graphs(bundle, hardware, arguments.seconds / 4))
        for format_, figures in generation.items():
            figures.append(generated(bundle, hardware, format_, int(limits[-1].rate * arguments.seconds)))
    print("| | images/s | of the limit | CPU ms per image |\n|---|---|---|---|")
    print(f"| bare graphs | {_rates(limits)} | | {_cpu_ms(limits)} |")
    for format_, figures in generation.items():
        ratios = [one.rate / limit.rate for one, limit in zip(figures, limits, strict=True)]
        shares = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| `--format {format_}` | {_rates(figures)} | {shares} | {_cpu_ms(figures)} |")


def _rates(figures: list[Figures]) -> str:
    rates = [one.rate for one in figures]
    return f"{min(rates):,.0f}–{max(rates):,.0f}"


def _cpu_ms(figures: list[Figures]) -> str:
    return f"{median(one.cpu_ms for one in figures):.3f}"


if __name__ == "__main__":
    main()
