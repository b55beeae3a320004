"""`bentoml serve` as a process of its own, for tests over a real socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx

from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]
KEY = "a-key-of-the-tests"


@contextmanager
def serving(bundles: Path, log: Path, **settings: object) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `bentoml serve`, as users run it; give its address and its process. SIGTERM ends it.

    Args:
        bundles: A bundle, or a folder of bundles.
        log: The file that takes what the server prints.
        settings: Settings of the server. `port` is a free one by default.
    """
    # One worker starts faster than one per core, and tests of limits and of broken bundles need to know their number.
    given = {"bundles": bundles, "port": free_port(), "workers": 1, **settings}
    environment = {f"RAE_SERVE_{name.upper()}": str(value) for name, value in given.items()}
    own = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(log.parent / "bentoml")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve"],
            cwd=ROOT,
            env=os.environ | own | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that its workers can be ended with it
        )
    address = f"http://127.0.0.1:{given['port']}"

    def ready() -> bool:
        assert process.poll() is None, "the server has ended"
        try:
            return httpx.get(f"{address}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    try:
        try:
            wait_until(ready, 60, "the server is ready", pause=0.1)
        except AssertionError as error:
            error.add_note(log.read_text())
            raise
        yield address, process
    finally:
        process.terminate()
        try:
            status = process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert status in (0, -signal.SIGTERM)


def free_port() -> int:
    """Return a TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
