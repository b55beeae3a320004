"""Measure the throughput and latency of the service, against FastAPI, LitServe and BentoML's own batching.

    pip install litserve==0.2.19
    python -m benchmarks.serving BUNDLE [--seconds 10] [--rounds 3] [--device cuda] [--only NAME]

Every server answers `POST /v1/sample` with a PNG, and wrk, which must be installed, sends the requests on this
machine. The limit is the throughput of the bare graphs: prior and decoder run by ONNX Runtime in a loop, with the
best batch size and number of threads. Every round measures everything again, because other work on the machine
affects all of it. Printed are medians over the rounds; ratios are of figures of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

from benchmarks.serving.generator import Generator

ROOT = Path(__file__).parents[2]
CONNECTIONS = 32
# By server and round: the limit of the round, and the figures of each load.
Figures = dict[str, list[tuple[tuple[float, float], dict[str, dict[str, float]]]]]
SERVERS = {
    "rae-serve": ["bentoml", "serve"],
    "FastAPI": ["uvicorn", "benchmarks.serving.peer_fastapi:app", "--no-access-log", "--port", "PORT"],
    "LitServe": ["benchmarks.serving.peer_litserve", "PORT"],
    "BentoML batchable": ["bentoml", "serve", "benchmarks.serving.peer_bentoml:Front", "--port", "PORT"],
}


def bare_graphs(seconds: float) -> tuple[float, float]:
    """Measure the bare graphs: the images per second of the best batch, and the milliseconds of a single image."""
    rates, single_ms = [], []
    on_cuda = os.environ["BENCH_DEVICE"] == "cuda"
    for threads in (1,) if on_cuda else (1, os.cpu_count() or 1):
        generator = Generator(threads)
        for n in (1, 16, 32, 64, *((256, 1024) if on_cuda else ())):
            noise = generator.noise(0, n)
            generator.images(noise)
            runs, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds / 8:
                generator.images(noise)
                runs += 1
            took = time.perf_counter() - began
            rates.append(runs * n / took)
            if n == 1:
                single_ms.append(took / runs * 1e3)
    return max(rates), min(single_ms)


def measure(name: str, bundle: Path, seconds: float) -> dict[str, dict[str, float]]:
    """Start a server, and return wrk's figures of each load.

    Args:
        name: A key of SERVERS.
        bundle: The folder of the bundle that it serves.
        seconds: How long to measure each load.

    Returns:
        The figures for many connections with n = 1 and n = 16, and for one connection with n = 1 ("alone").
    """
    port = _free_port()
    command = [sys.executable, "-m", *(str(port) if word == "PORT" else word for word in SERVERS[name])]
    environment = os.environ | {
        "BENCH_BUNDLE": str(bundle),
        "RAE_SERVE_BUNDLES": str(bundle),
        "RAE_SERVE_DEVICE": os.environ["BENCH_DEVICE"],
        "RAE_SERVE_PORT": str(port),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        _wait_for(port)
        _wrk(port, 1, CONNECTIONS, 2)  # warm-up
        return {
            "n=1": _wrk(port, 1, CONNECTIONS, seconds),
            "n=16": _wrk(port, 16, CONNECTIONS, seconds),
            "alone": _wrk(port, 1, 1, seconds),
        }
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:  # BentoML's own batching may hang after dropped requests
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="the folder of the bundle to serve")
    parser.add_argument("--seconds", type=float, default=10, help="the time of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all measurements; the medians count")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where all graphs run")
    parser.add_argument("--only", choices=SERVERS, action="append", help="measure this server; may be repeated")
    arguments = parser.parse_args()
    bundle = arguments.bundle.resolve()
    os.environ |= {"BENCH_BUNDLE": str(bundle), "BENCH_DEVICE": arguments.device}
    limits: list[tuple[float, float]] = []
    figures: Figures = {name: [] for name in arguments.only or SERVERS}
    for _ in range(arguments.rounds):
        for name, rounds in figures.items():
            limits.append(bare_graphs(arguments.seconds))
            rounds.append((limits[-1], measure(name, bundle, arguments.seconds)))
            print(json.dumps({"limit": limits[-1][0], "single_ms": limits[-1][1], name: rounds[-1][1]}), flush=True)
    _print(limits, figures)


def _print(limits: list[tuple[float, float]], figures: Figures) -> None:
    print(f"\nlimit {median(rate for rate, _ in limits):.0f} images/s; alone {median(ms for _, ms in limits):.2f} ms")
    print(
        "| | n=1, requests/s | of the limit | n=16, requests/s | of the limit | p50 alone, ms above bare | errors |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, rounds in figures.items():
        cells = []
        for load, n in (("n=1", 1), ("n=16", 16)):
            cells.append(f"{median(f[load]['requests_per_s'] for _, f in rounds):.1f}")
            cells.append(f"{median(f[load]['requests_per_s'] * n / rate for (rate, _), f in rounds):.2f}")
        above = median(f["alone"]["p50_ms"] - ms for (_, ms), f in rounds)
        errors = sum(f[load]["errors"] for _, f in rounds for load in f)
        print(f"| {name} | {' | '.join(cells)} | {above:.2f} | {errors:.0f} |")


def _wrk(port: int, n: int, connections: int, seconds: float) -> dict[str, float]:
    script = str(Path(__file__).with_name("sample.lua"))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", script]
    ran = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/v1/sample"],
        env=os.environ | {"BENCH_N": str(n)},
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in ran.stdout.splitlines() if line.startswith("RESULT "))
    result: dict[str, float] = json.loads(line.removeprefix("RESULT "))
    return result


def _wait_for(port: int) -> None:
    body = json.dumps({"n": 1, "seed": 1}).encode()
    headers = {"Content-Type": "application/json"}
    for _ in range(300):
        try:
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/v1/sample", body, headers))
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"the server at port {port} does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
