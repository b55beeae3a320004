"""What all tests share: seeds, a small bundle, servers of it, and the command line. Nothing here needs torch."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rae_serve import sessions
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from tests.serving import KEY, ROOT, serving
from tests.toolchains import require

MNIST = ROOT / ".." / "shared" / "data"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = {
        "mnist": None if (MNIST / "MNIST").is_dir() else "the real MNIST is not in ../shared/data",
        "gpu": None if sessions.cuda_memories() else "there is no CUDA device",
    }
    for item in items:
        for mark, reason in missing.items():
            if reason and mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """Begin every test at the same state of the global random generators, and of its module's own, RNG."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    if hasattr(request.module, "RNG"):
        request.module.RNG = np.random.default_rng(0)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy of the small bundle that tests/data/make_bundle.py made."""
    copy = tmp_path_factory.mktemp("bundles") / "digits"
    return Bundle.load(shutil.copytree(Path(__file__).parent / "data" / "digits", copy))


@pytest.fixture(scope="session")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle, device="cpu")


@pytest.fixture(scope="session")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service of the small bundle."""
    with serving(bundle.path, tmp_path_factory.mktemp("log") / "serve.log") as (address, _):
        yield address


@pytest.fixture(scope="session")
def locked_server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service that asks for KEY. The key never stands in its log."""
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serving(bundle.path, log, api_keys=KEY) as (address, _):
        yield address
    assert KEY not in log.read_text()


@pytest.fixture(scope="module")
def browser():
    """A Chromium of Playwright, without windows."""
    require(CHROMIUM, "Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node, with the packages of examples/ installed."""
    node = shutil.which("node")
    require(node, "Node")
    require(
        (ROOT / "examples" / "node_modules" / "onnxruntime-node").is_dir(),
        "ONNX Runtime for JavaScript (npm install in examples/)",
    )
    assert node
    return node


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `rae-serve` with these words; return its exit status, stdout and stderr."""
    from rae_serve.cli import main as cli

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rae-serve", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run


@pytest.fixture
def fails(command):
    """Run a command that must fail: status 2, nothing on stdout, and one line on stderr that has these texts."""

    def run(words: list[object], *texts: str) -> None:
        status, out, err = command(*words)
        assert (status, out) == (2, "")
        assert err.startswith("rae-serve: ")
        assert err.count("\n") == 1
        for text in texts:
            assert text in err

    return run
