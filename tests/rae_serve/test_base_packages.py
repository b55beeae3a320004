"""The library needs numpy, onnxruntime, pillow and pydantic only, each tested in a process without the extras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXTRAS = (
    "bentoml",
    "deflate",
    "docstring_parser",
    "fastapi",
    "httptools",
    "httpx",
    "huggingface_hub",
    "jinja2",
    "matplotlib",
    "onnx",
    "onnxscript",
    "prometheus_client",
    "python_multipart",
    "ray",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "starlette",
    "tensorboard",
    "torch",
    "torch_fidelity",
    "torchvision",
    "training",
    "typer",
    "uvicorn",
    "uvloop",
)
LIBRARY = sorted(path.stem for path in (Path(__file__).parents[2] / "rae_serve").glob("*.py"))


def run_without_extras(code: str) -> str:
    without = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", without + code], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_every_module_of_the_library_needs_the_base_packages_only():
    modules = [name for name in LIBRARY if name not in ("__init__", "client", "hub", "ray", "service")]
    assert {"attributes", "engine", "labels"} < set(modules)
    run_without_extras("".join(f"import rae_serve.{name}\n" for name in modules))


def test_the_package_offers_bundle_engine_and_manifest():
    out = run_without_extras(
        "import rae_serve; print(*(getattr(rae_serve, name).__name__ for name in rae_serve.__all__))"
    )
    assert out.split() == ["Bundle", "Engine", "Manifest"]


def test_png_files_are_written_without_deflate():
    out = run_without_extras(
        "import numpy as np\n"
        "from rae_serve import png\n"
        "print(png.compressor.name, png.encode(np.zeros((8, 8), np.uint8)))"
    )
    assert out.startswith("zlib ")
    assert "IEND" in out


@pytest.mark.parametrize("kind", ["ImportError", "RaeServeError"])
def test_the_client_without_httpx_says_how_to_install_it(kind):
    out = run_without_extras(
        "from rae_serve.errors import RaeServeError\n"
        "try:\n    import rae_serve.client\n"
        f"except {kind} as error:\n    print(error)"
    )
    assert "httpx" in out
    assert "-m pip install" in out
    assert "[client]" in out
