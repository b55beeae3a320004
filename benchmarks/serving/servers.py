"""Start the service and its peers, send requests to them, and measure their CPU time."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
START_SECONDS = 90  # the longest time that a server may take to start
STOP_SECONDS = 30  # the longest time that it may take to end


@dataclass(frozen=True)
class Server:
    """How to start a server, and how to ask it for images."""

    package: str
    """What the Python that runs it must have installed."""
    command: tuple[str, ...]
    """The arguments of `python -m`; {port} is the port."""
    path: str = "/v1/sample"
    body: str = '{"n": %d, "seed": %d}'
    """The body of a request, for `%` with the number of images and the seed."""


SERVERS = {
    "rae-serve": Server("bentoml", ("bentoml", "serve")),
    "FastAPI": Server(
        "uvicorn", ("uvicorn", "benchmarks.serving.peer_fastapi:app", "--no-access-log", "--port", "{port}")
    ),
    "LitServe": Server("litserve", ("benchmarks.serving.peer_litserve", "{port}")),
    "BentoML batchable": Server(
        "bentoml", ("bentoml", "serve", "benchmarks.serving.peer_bentoml:Front", "--port", "{port}")
    ),
    "mosec": Server(
        "mosec",
        ("benchmarks.serving.peer_mosec", "--address", "127.0.0.1", "--port", "{port}", "--timeout", "30000"),
    ),
    # Triton's own HTTP API, with the PNG file as raw bytes after the JSON of the response.
    "PyTriton": Server(
        "pytriton",
        ("benchmarks.serving.peer_pytriton", "{port}"),
        "/v2/models/sample/infer",
        '{"inputs": [{"name": "n", "shape": [1, 1], "datatype": "INT64", "data": [%d]},'
        ' {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [%d]}],'
        ' "outputs": [{"name": "png", "parameters": {"binary_data": true}}]}',
    ),
}


@dataclass(frozen=True)
class Answers:
    """What a server did under one load."""

    per_s: float
    """Right responses per second."""
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us: float
    """CPU time of all processes of the server, in microseconds per right response."""


def bundle_folder(text: str) -> Path:
    """Return the folder of a bundle that stands on a command line."""
    folder = Path(text).resolve()
    if not (folder / "manifest.json").is_file():
        raise argparse.ArgumentTypeError(f"{text} is no bundle: it has no manifest.json; rae-serve export makes one")
    return folder


def at_least_one(text: str) -> int:
    """Return a whole number that stands on a command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return int(text)


def find_python(package: str, pythons: Sequence[str]) -> str | None:
    """Return the first of some Python interpreters that has a package, or None."""
    test = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return next((python for python in pythons if subprocess.run([python, "-c", test]).returncode == 0), None)


class Running:
    """A server that runs on this machine."""

    def __init__(self, server: Server, process: psutil.Popen, port: int) -> None:
        self.process = process
        self._server = server
        self._url = f"http://127.0.0.1:{port}{server.path}"

    def load(self, n: int, connections: int, seconds: int) -> Answers:
        """Send requests as fast as they are answered, and return what the server did.

        Args:
            n: The number of images that each request asks for.
            connections: The number of requests at a time.
            seconds: How long to send requests.
        """
        script = str(Path(__file__).with_name("sample.lua"))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script, self._url]
        environment = os.environ | {"BENCH_N": str(n), "BENCH_BODY": self._server.body}
        before = self._cpu_seconds()
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        cpu_seconds = self._cpu_seconds() - before
        line = next(line for line in ran.stdout.splitlines() if line.startswith("RESULT "))
        result = json.loads(line.removeprefix("RESULT "))
        return Answers(
            per_s=result["right"] / result["seconds"],
            p50_ms=result["p50_ms"],
            p99_ms=result["p99_ms"],
            errors=result["errors"],
            cpu_us=cpu_seconds * 1e6 / max(1, result["right"]),
        )

    def answers(self) -> bool:
        """Return whether the server answers a request."""
        request = urllib.request.Request(
            self._url, (self._server.body % (1, 1)).encode(), {"Content-Type": "application/json"}
        )
        with suppress(OSError), urllib.request.urlopen(request, timeout=START_SECONDS):
            return True
        return False

    def _cpu_seconds(self) -> float:
        total = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total


@contextmanager
def running(name: str, bundle: Path, device: str, python: str = sys.executable) -> Iterator[Running]:
    """Start a server, wait until it answers, and stop it in the end.

    Args:
        name: A key of SERVERS.
        bundle: The folder of the bundle that it serves.
        device: Where its graphs run: cpu or cuda.
        python: The Python interpreter that runs it.
    """
    port = _free_port()
    command = [python, "-m", *(word.format(port=port) for word in SERVERS[name].command)]
    environment = os.environ | {
        "BENCH_BUNDLE": str(bundle),
        "BENCH_DEVICE": device,
        "RAE_SERVE_BUNDLES": str(bundle),
        "RAE_SERVE_DEVICE": device,
        "RAE_SERVE_PORT": str(port),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONPATH": str(ROOT),
    }
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        server = Running(SERVERS[name], process, port)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not server.answers():
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"{log.read().decode(errors='replace')[-2000:]}\n{name} did not start; its log is above")
                time.sleep(0.2)
            yield server
        finally:
            _stop(process)


def _stop(process: psutil.Popen) -> None:
    with suppress(psutil.NoSuchProcess):
        tree = [process, *process.children(recursive=True)]
        process.terminate()
        _, left = psutil.wait_procs(tree, STOP_SECONDS)
        for survivor in left:  # BentoML's own batching may hang after dropped requests
            survivor.kill()
        psutil.wait_procs(left, STOP_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
