"""Measure throughput, latency and CPU time of the service and its peers, against the limit of the machine.

    pip install litserve==0.2.19 mosec==0.9.8 nvidia-pytriton==0.7.0
    python -m benchmarks.serving BUNDLE… [--seconds 10] [--rounds 3] [--device cuda] [--only NAME]

Every server answers requests with PNG files, and wrk, which must be installed, sends the requests on this machine.
nvidia-pytriton needs numpy 1 and a Python with a shared library, like Debian's: give it an environment of its own,
and name the Python of that environment with --peer-python.

The limit is what the bare graphs make: the most images per second of all combinations of lanes (processes with
sessions of their own), threads per session and batch size. The best one is measured again before each server, whose
share of the limit is of that figure, because other work on the machine affects both. Printed are medians over the
rounds. CPU time is that of all processes of a server. "Alone" is the time of a response over the only connection.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.serving import limit
from benchmarks.serving.limit import Point
from benchmarks.serving.servers import SERVERS, Answers, at_least_one, bundle_folder, find_python, running

SIZES = (1, 16)  # images per request
CONNECTIONS = (32, 1)
WARM_UP_SECONDS = 2
POINT_SHARE = 1 / 8  # of the seconds of a load: one combination of the limit
LEAST_REQUESTS = 4  # of each connection, if a server were as fast as the limit; a slow model gets more time


@dataclasses.dataclass(frozen=True)
class Served:
    """All figures of one server in one round."""

    limit: float
    """Images per second of the best combination of the round, measured again just before."""
    loads: dict[tuple[int, int], Answers]
    """By images per request and connections."""

    def share(self, n: int) -> float:
        """Return the images per second as a share of the limit."""
        return self.loads[n, CONNECTIONS[0]].per_s * n / self.limit


@dataclasses.dataclass(frozen=True)
class Round:
    """All figures of one round of a bundle."""

    points: list[Point]
    servers: dict[str, Served]

    @property
    def best(self) -> Point:
        """The combination with the most images per second."""
        return max(self.points, key=lambda point: point.images_per_s)

    def alone_ms(self, n: int) -> float:
        """Return the time of one bare batch with nothing beside it, with the best number of threads."""
        return min(point.median_ms for point in self.points if point.lanes == 1 and point.batch == n)


def main() -> None:
    """Measure, and print a table for each bundle."""
    arguments, pythons = _arguments()
    for bundle in arguments.bundles:
        rounds = []
        for _ in range(arguments.rounds):
            points = limit.measure(bundle, arguments.device, arguments.seconds * POINT_SHARE)
            _log(bundle, "limit", [dataclasses.asdict(point) for point in points])
            measured = Round(points, {})
            rounds.append(measured)
            for name, python in pythons.items():
                rate = limit.measure_again(bundle, arguments.device, measured.best, arguments.seconds / 2)
                loads = {}
                with running(name, bundle, arguments.device, python) as server:
                    server.load(SIZES[0], CONNECTIONS[0], WARM_UP_SECONDS)
                    for n, connections in itertools.product(SIZES, CONNECTIONS):
                        seconds = max(arguments.seconds, math.ceil(LEAST_REQUESTS * n * connections / rate))
                        loads[n, connections] = server.load(n, connections, seconds)
                measured.servers[name] = Served(rate, loads)
                _log(bundle, name, {f"{n}x{c}": dataclasses.asdict(load) for (n, c), load in loads.items()})
        print(_table(bundle.name, rounds), flush=True)


def _arguments() -> tuple[argparse.Namespace, dict[str, str]]:
    """Read the command line. Return it, and the Python interpreter of each server to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "bundles", type=bundle_folder, nargs="+", metavar="BUNDLE", help="the folder of a bundle to serve"
    )
    parser.add_argument("--seconds", type=at_least_one, default=10, help="the time of each load")
    parser.add_argument(
        "--rounds", type=at_least_one, default=3, help="rounds of all measurements; the medians count"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where all graphs run")
    parser.add_argument("--only", choices=SERVERS, action="append", help="measure this server; may be repeated")
    parser.add_argument(
        "--peer-python", default=[], action="append", help="runs the peers that this Python lacks; may be repeated"
    )
    arguments = parser.parse_args()
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


def _log(bundle: Path, name: str, figures: object) -> None:
    print(json.dumps({"bundle": bundle.name, name: figures}), file=sys.stderr, flush=True)


def _table(bundle: str, rounds: list[Round]) -> str:
    """Return the Markdown table of a bundle."""
    heads = [""]
    for n in SIZES:
        heads += [f"n = {n}: requests/s", "of the limit", "CPU µs"]
    heads += [*(f"alone, n = {n}: p50 ms" for n in SIZES), "errors"]
    lines = [_row(heads), "|---" * len(heads) + "|"]
    bare = ["bare graphs"]
    for n in SIZES:
        rate = median(r.best.images_per_s for r in rounds) / n
        cpu_us = median(r.best.cpu_us for r in rounds) * n
        bare += [_short(rate), "100%", _short(cpu_us)]
    bare += [f"{median(r.alone_ms(n) for r in rounds):.2f}" for n in SIZES]
    lines.append(_row([*bare, ""]))
    for name in rounds[0].servers:
        cells = [name]
        for n in SIZES:
            loads = [r.servers[name].loads[n, CONNECTIONS[0]] for r in rounds]
            cells.append(_short(median(load.per_s for load in loads)))
            cells.append(f"{median(r.servers[name].share(n) for r in rounds):.1%}")
            cells.append(_short(median(load.cpu_us for load in loads)))
        cells += [f"{median(r.servers[name].loads[n, 1].p50_ms for r in rounds):.2f}" for n in SIZES]
        cells.append(str(sum(load.errors for r in rounds for load in r.servers[name].loads.values())))
        lines.append(_row(cells))
    best = ", ".join(f"{point.lanes} × {point.threads} × {point.batch}" for point in (r.best for r in rounds))
    return f"\n{bundle}: {CONNECTIONS[0]} connections; best lanes × threads × batch {best}\n\n" + "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _short(figure: float) -> str:
    return f"{figure:,.1f}" if figure < 100 else f"{figure:,.0f}"


if __name__ == "__main__":
    main()
