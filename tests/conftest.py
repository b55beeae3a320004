"""A small FlexAE, trained for a moment on real digits and exported, for all tests that need a model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
import torch

from rae_serve.bundle import Bundle
from rae_serve.cli import main as cli
from rae_serve.engine import Engine
from training import recipe as recipes
from training.export.bundle import export
from training.recipe import Recipe
from training.runs import Run, load_data
from training.trainer import Trainer

SMALL = (
    "steps=30",
    "log_every=5",
    "sample_every=15",
    "filters=4",
    "hidden=16",
    "prior_hidden=16",
    "critic_hidden=16",
)
ROOT = Path(__file__).parents[1]
MNIST = ROOT / ".." / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "mnist" in item.keywords and not (MNIST / "MNIST").is_dir():
            item.add_marker(pytest.mark.skip(reason="the real MNIST is not in ../shared/data"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # these models are too small to share


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return recipes.load("flexae-digits", SMALL)


@pytest.fixture(scope="session")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "digits"
    dataset = load_data(recipe, "digits")
    run = Run.create(path, recipe, dataset, "digits")
    Trainer(recipe, dataset, path, torch.device("cpu")).fit()
    return run


@pytest.fixture(scope="session")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(run, tmp_path_factory.mktemp("bundles") / "digits")


@pytest.fixture(scope="session")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle, device="cpu")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(bundles: Path, log: Path, **settings: object) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`bentoml serve`, as users run it, over a real socket: its address and process. Ended by SIGTERM."""
    port = free_port()
    given = {"bundles": bundles, "port": port, **settings}
    environment = {f"RAE_SERVE_{name.upper()}": str(value) for name, value in given.items()}
    # A home of its own: every `bentoml serve` empties the folder of metrics in the home that it shares.
    own = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(log.parent / "bentoml")}
    environment = os.environ | own | environment
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if httpx.get(f"{address}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        yield address, process
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15)


@pytest.fixture(scope="session")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service of that bundle."""
    with serving(bundle.path, tmp_path_factory.mktemp("log") / "serve.log") as (address, _):
        yield address


KEY = "a-key-of-the-tests"


@pytest.fixture(scope="session")
def locked_server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same, for those who have KEY; in whose log it never stands."""
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serving(bundle.path, log, api_keys=KEY) as (address, _):
        yield address
    assert KEY not in log.read_text()


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `rae-serve` with these words; its exit status, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rae-serve", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run


@pytest.fixture
def fails(command):
    """Runs what must fail as design.md says: status 2, nothing on stdout, one line on stderr with these texts."""

    def run(words: list[object], *texts: str) -> None:
        status, out, err = command(*words)
        assert (status, out) == (2, "")
        assert err.startswith("rae-serve: ")
        assert err.count("\n") == 1
        for text in texts:
            assert text in err

    return run
