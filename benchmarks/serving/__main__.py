"""Measure throughput, latency and CPU time of the service and its peers, against the limit of the machine.

    pip install litserve==0.2.19 mosec==0.9.8 nvidia-pytriton==0.7.0
    python -m benchmarks.serving BUNDLE… [--seconds 10] [--rounds 3] [--device cuda] [--only NAME] [--peer-python PATH]

Every server answers requests with PNG files, and wrk, which must be installed, sends the requests on this machine.
nvidia-pytriton needs numpy 1 and a Python with a shared library, like Debian's: give it an environment of its own.

The limit is what the bare graphs make: the most images per second of all combinations of lanes (processes with sessions
of their own), threads per session and batch size. Every round measures everything again, because other work on the
machine affects all of it. Printed are medians over the rounds; shares of the limit are of figures of the same round.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from statistics import median

from benchmarks.serving import limit
from benchmarks.serving.limit import Point
from benchmarks.serving.servers import SERVERS, Answers, find_python, running

SIZES = (1, 16)  # images per request
CONNECTIONS = (32, 1)
WARM_UP_SECONDS = 2
POINT_SHARE = 1 / 8  # of the seconds of a load: one combination of the limit

Loads = dict[tuple[int, int], Answers]  # by images per request and connections


@dataclasses.dataclass(frozen=True)
class Round:
    """All figures of one round of a bundle."""

    points: list[Point]
    servers: dict[str, Loads]

    @property
    def best(self) -> Point:
        """The combination with the most images per second."""
        return max(self.points, key=lambda point: point.images_per_s)

    def alone_ms(self, n: int) -> float:
        """Return the time of one bare batch with nothing beside it, with the best number of threads."""
        return min(point.median_ms for point in self.points if point.lanes == 1 and point.batch == n)

    def share(self, name: str, n: int) -> float:
        """Return the images per second of a server as a share of the limit."""
        return self.servers[name][n, CONNECTIONS[0]].per_s * n / self.best.images_per_s


def main() -> None:
    """Measure, and print a table for each bundle."""
    arguments, pythons = _arguments()
    for bundle in arguments.bundles:
        os.environ |= {"BENCH_BUNDLE": str(bundle.resolve()), "BENCH_DEVICE": arguments.device}
        rounds = []
        for _ in range(arguments.rounds):
            points = limit.measure(arguments.seconds * POINT_SHARE)
            _log(bundle, "limit", [dataclasses.asdict(point) for point in points])
            servers = {}
            for name, python in pythons.items():
                with running(name, bundle.resolve(), arguments.device, python) as server:
                    server.load(SIZES[0], CONNECTIONS[0], WARM_UP_SECONDS)
                    servers[name] = {
                        (n, connections): server.load(n, connections, arguments.seconds)
                        for n in SIZES
                        for connections in CONNECTIONS
                    }
                _log(bundle, name, {f"{n}x{c}": dataclasses.asdict(load) for (n, c), load in servers[name].items()})
            rounds.append(Round(points, servers))
        print(_table(bundle.name, rounds), flush=True)


def _arguments() -> tuple[argparse.Namespace, dict[str, str]]:
    """Read the command line. Return it, and the Python interpreter of each server to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="the folder of a bundle to serve")
    parser.add_argument("--seconds", type=_at_least_one, default=10, help="the time of each load")
    parser.add_argument("--rounds", type=_at_least_one, default=3, help="rounds of all measurements; the medians count")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where all graphs run")
    parser.add_argument("--only", choices=SERVERS, action="append", help="measure this server; may be repeated")
    parser.add_argument(
        "--peer-python", default=[], action="append", help="runs the peers that this Python lacks; may be repeated"
    )
    arguments = parser.parse_args()
    for bundle in arguments.bundles:
        if not (bundle / "manifest.json").is_file():
            parser.error(f"{bundle} is no bundle: it has no manifest.json; rae-serve export makes one")
    for python in arguments.peer_python:
        if shutil.which(python) is None:
            parser.error(f"--peer-python {python}: there is no such program")
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed; it sends the requests")
    pythons = {}
    for name in arguments.only or SERVERS:
        package = SERVERS[name].package
        python = find_python(package, [sys.executable, *arguments.peer_python])
        if python is None:
            parser.error(
                f"no Python has {package} for {name}: install it, name a Python that has it with --peer-python, "
                "or name the other servers with --only"
            )
        pythons[name] = python
    return arguments, pythons


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number


def _log(bundle: Path, name: str, figures: object) -> None:
    print(json.dumps({"bundle": bundle.name, name: figures}), file=sys.stderr, flush=True)


def _table(bundle: str, rounds: list[Round]) -> str:
    """Return the Markdown table of a bundle."""
    best = rounds[0].best
    many = f"{CONNECTIONS[0]} connections"
    lines = [
        f"\n{bundle}: limit with {best.lanes} lanes, {best.threads} threads each, batches of {best.batch}\n",
        "| | "
        + " | ".join(f"n = {n}, {many}: requests/s | of the limit | CPU µs per request" for n in SIZES)
        + " | "
        + " | ".join(f"alone, n = {n}: p50 ms" for n in SIZES)
        + " | errors |",
        "|---|" + "---|" * (4 * len(SIZES) + 1),
    ]
    bare = ["bare graphs"]
    for n in SIZES:
        rate = median(round_.best.images_per_s for round_ in rounds) / n
        cpu_us = median(round_.best.cpu_us for round_ in rounds) * n
        bare += [_short(rate), "1", _short(cpu_us)]
    bare += [f"{median(round_.alone_ms(n) for round_ in rounds):.2f}" for n in SIZES]
    lines.append(f"| {' | '.join(bare)} | |")
    for name in rounds[0].servers:
        cells = [name]
        for n in SIZES:
            loads = [round_.servers[name][n, CONNECTIONS[0]] for round_ in rounds]
            cells.append(_short(median(load.per_s for load in loads)))
            cells.append(f"{median(round_.share(name, n) for round_ in rounds):.2f}")
            cells.append(_short(median(load.cpu_us for load in loads)))
        cells += [f"{median(round_.servers[name][n, 1].p50_ms for round_ in rounds):.2f}" for n in SIZES]
        cells.append(str(sum(load.errors for round_ in rounds for load in round_.servers[name].values())))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(figure: float) -> str:
    return f"{figure:,.1f}" if figure < 100 else f"{figure:,.0f}"


if __name__ == "__main__":
    main()
