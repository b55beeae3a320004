"""examples/node, examples/python and examples/c: each makes the images of a seed that the HTTP API makes."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.examples.conftest import EXAMPLES
from tests.serving import ROOT
from tests.toolchains import require

# Where Debian's libonnxruntime-dev puts the header, and where .ci/run puts it alone.
HEADERS = [Path("/usr/include/onnxruntime"), ROOT / "build" / "debian13" / "usr" / "include" / "onnxruntime"]


@pytest.fixture(scope="session")
def c_program(tmp_path_factory) -> Path:
    """examples/c, compiled against the ONNX Runtime of this Python."""
    for program in ("cc", "make"):
        require(shutil.which(program), program)
    header = next((folder for folder in HEADERS if (folder / "onnxruntime_c_api.h").is_file()), None)
    require(header, "onnxruntime_c_api.h (Debian's libonnxruntime-dev)")
    folder = tmp_path_factory.mktemp("c")
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    (folder / "libonnxruntime.so.1").symlink_to(library)  # the name by which programs ask for it
    linked = f"{folder / 'libonnxruntime.so.1'} -Wl,-rpath,{folder}"
    settings = {
        "OUT": f"{folder}/",
        "ORT_INCLUDE": header,
        "ORT_LIBRARY": linked,
        "CFLAGS": "-O2 -Wall -Wextra -Werror",
    }
    given = [f"{name}={value}" for name, value in settings.items()]
    subprocess.run(["make", "-C", EXAMPLES / "c", *given], check=True, timeout=60)
    return folder / "sample"


def images_of(paths: list[Path]) -> np.ndarray:
    """Images [N, H, W, C] of picture files."""
    images = []
    for path in paths:
        with Image.open(path) as picture:
            images.append(np.asarray(picture).reshape(picture.height, picture.width, -1))
    return np.stack(images)


def run(*command: object, **where: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, **where)


def check(images: np.ndarray, example, client) -> None:
    """Compare images of seed 7, from row 0 on, with the golden vectors and the HTTP API."""
    tolerance = example.manifest.tolerance.grey_levels
    assert np.abs(images.astype(int) - client.sample(len(images), seed=7)).max() <= tolerance
    (sample,) = [one for one in example.vectors()["samples"] if (one["seed"], one["row"]) == (7, 0)]
    wanted = np.frombuffer(base64.b64decode(sample["pixels"]), np.uint8).reshape(example.manifest.image.shape)
    assert np.abs(images[0].astype(int) - wanted).max() <= tolerance


def test_node(node, example, client, tmp_path):
    done = run(node, "sample.js", example.path, 7, 12, tmp_path / "out", cwd=EXAMPLES / "node")
    assert (done.returncode, done.stderr) == (0, "")
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == [f"7-{row:06}.png" for row in range(12)]
    check(images_of(paths), example, client)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "usage: node sample.js BUNDLE SEED N OUT"),
        (["nowhere", 7, 1, "out"], "manifest.json cannot be read: ENOENT"),
        ([ROOT / "tests" / "data" / "waves", "seven", 1, "out"], "seed must be an integer"),
    ],
)
def test_node_says_what_is_wrong(node, words, problem, tmp_path):
    done = run(node, EXAMPLES / "node" / "sample.js", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_python(example, client, tmp_path):
    paths = [tmp_path / f"{row}.png" for row in range(4)]
    for row, path in enumerate(paths):
        done = run(sys.executable, EXAMPLES / "python" / "sample.py", example.path, 7, row, path)
        assert (done.returncode, done.stderr) == (0, "")
    check(images_of(paths), example, client)


@pytest.mark.parametrize("words", [[], [7, 0], ["bundle", -7, 0, "out"], ["bundle", 7, 2**53, "out"]])
def test_python_says_how_it_is_used(words, tmp_path):
    done = run(sys.executable, EXAMPLES / "python" / "sample.py", *words, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("python sample.py BUNDLE SEED ROW OUT.png\n")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_python_needs_little():
    """It imports the standard library, numpy and ONNX Runtime alone, and makes any seed's noise to the bit."""
    source = (EXAMPLES / "python" / "sample.py").read_text()
    assert len(source.splitlines()) < 40
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}
    from rae_serve import noise

    scope: dict = {}
    exec(source.partition("valid = ")[0], scope)
    for seed, row in ((0, 0), (7, 123), (2**53 - 1, 2**53 - 1), (2**40 + 3, 5)):
        assert np.array_equal(scope["noise"](seed, row, 999), noise.normals(seed, row, 1, 999))


def test_c(c_program, example, client, tmp_path):
    done = run(c_program, example.path, 7, 12, tmp_path / "image")
    assert (done.returncode, done.stderr) == (0, "")
    ending = "pgm" if example.manifest.image.mode == "L" else "ppm"
    check(images_of([tmp_path / f"image-{row}.{ending}" for row in range(12)]), example, client)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "usage: sample BUNDLE SEED N OUT"),
        (["nowhere", 7, 1, "out"], "nowhere/prior.onnx"),
        ([ROOT / "tests" / "data" / "waves", -7, 1, "out"], "SEED: must be an integer from 0"),
        ([ROOT / "tests" / "data" / "waves", 7, 2**53, "out"], "N: must be an integer from 0"),
        ([ROOT / "tests" / "data" / "waves", 7, 1, "nowhere/out"], "cannot write: nowhere/out-0.ppm"),
    ],
)
def test_c_says_what_is_wrong(c_program, words, problem, tmp_path):
    done = run(c_program, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert problem in done.stderr
    assert list(tmp_path.iterdir()) == []
