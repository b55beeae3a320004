from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rae_serve import extras, images
from rae_serve.cli import serving
from rae_serve.cli.common import console
from rae_serve.engine import Engine
from tests.serving import ROOT


def test_samples_are_the_same_in_every_file(command, bundle, engine, tmp_path):
    expected = engine.sample(5, seed=7, offset=2)
    words = ["sample", bundle.path, "-n", 5, "--seed", 7, "--offset", 2, "--out"]
    assert command(*words, tmp_path / "grid.png")[0] == 0
    assert np.array_equal(Image.open(tmp_path / "grid.png"), images.grid(expected)[..., 0])
    assert command(*words, tmp_path / "all.npz")[0] == 0
    with np.load(tmp_path / "all.npz") as arrays:
        assert np.array_equal(arrays["images"], expected)
        assert arrays["seed"] == 7
    assert command(*words, tmp_path / "folder")[0] == 0
    files = sorted((tmp_path / "folder").iterdir())
    assert [file.name for file in files] == [f"7-{i:06d}.png" for i in range(2, 7)]
    assert np.array_equal([np.asarray(Image.open(file)) for file in files], expected[..., 0])


def test_what_is_encoded_can_be_seen(command, fails, bundle, tmp_path):
    files, wanted = [], []
    for index, picture in enumerate(bundle.vectors()["pictures"]):
        files.append(tmp_path / f"{index}.png")
        files[-1].write_bytes(base64.b64decode(picture["file"]))
        wanted.append(np.frombuffer(base64.b64decode(picture["pixels"]), np.uint8).reshape(8, 8, 1))
    assert command("prepare", bundle.path, *files, "--out", tmp_path / "all.npy")[0] == 0
    assert np.array_equal(np.load(tmp_path / "all.npy"), wanted)
    assert command("prepare", bundle.path, *files, "--out", tmp_path / "all.png")[0] == 0
    assert np.array_equal(Image.open(tmp_path / "all.png"), images.grid(np.array(wanted))[..., 0])
    fails(["prepare", bundle.path, bundle.path / "manifest.json", "--out", tmp_path / "x.png"], "manifest.json")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["inspect", "nothing"], "no bundle"),
        (["verify", "."], "is not a bundle"),
        (["frobnicate"], "frobnicate"),
        (["sample", "x"], "--out"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(fails, tmp_path, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    fails(words, text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-n", 0], "n: must be from 1"),
        (["-n", -1], "-1"),
        (["-n", 10**9], "1000000000"),
        (["-n", "four"], "four"),
        (["--seed", -1], "seed"),
        (["--seed", 2**53], "seed"),
        (["--offset", -1], "offset"),
        (["--offset", 2**53], "offset"),
        (["--temperature", -1], "temperature"),
        (["--out", "picture.gif"], "picture.gif"),
    ],
)
def test_samples_that_cannot_be(fails, bundle, tmp_path, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    fails(["sample", bundle.path, "--out", "x.png", *words], text)
    fails(["sample", bundle.path, "--out", "folder", *words], text)
    assert list(tmp_path.iterdir()) == []


def test_folders_in_use_are_left_alone(fails, bundle, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    fails(["sample", bundle.path, "--out", tmp_path], "in use")
    fails(
        ["sample", bundle.path, "--out", tmp_path / "mine.txt" / "x.png"],
        "/x.png cannot be written",
        "mine.txt is a file",
    )
    fails(["sample", bundle.path, "--out", tmp_path / "no" / "such" / "x.png"], "x.png cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_damaged_bundle_is_named(fails, bundle, tmp_path):
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    data = bytearray((copy / "decoder.onnx").read_bytes())
    data[1000] ^= 1
    (copy / "decoder.onnx").write_bytes(data)
    for words in (["verify", copy], ["inspect", copy], ["sample", copy, "--out", tmp_path / "x.png"]):
        fails(words, "decoder.onnx is damaged")


@pytest.fixture
def without_torch(monkeypatch):
    """Hide the packages of the extra `train`, and let the test import `training` afresh."""
    imported = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "training"}
    for name in ("filelock", "jinja2", "onnx", "safetensors", "scipy", "sklearn", "torch", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in imported:
        del sys.modules[name]
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "training"]:
        del sys.modules[name]
    sys.modules.update(imported)


def test_training_without_torch_says_how_to_install_it(fails, monkeypatch, without_torch):
    monkeypatch.setattr(extras, "_origin", dict)  # installed from an index
    for words in (["train", "flexae-digits"], ["export", "run"], ["evaluate", "run"], ["study", "x", "--out", "y"]):
        fails(words, "this needs torch, which is not installed", "pip install 'rae-serve[train]'")


def test_joining_graphs_without_onnx_says_how_to_install_it(fails, bundle, monkeypatch, without_torch):
    monkeypatch.setattr(extras, "_origin", dict)  # installed from an index
    fails(["upgrade", bundle.path, "--generator"], "this needs onnx, which is not installed", "rae-serve[train]")


def test_recipes_need_no_torch(command, monkeypatch, without_torch):
    monkeypatch.setattr(console, "width", 300)
    listed = command("recipes")[1].splitlines()
    assert {line.split()[0] for line in listed[1:]} == {path.stem for path in (ROOT / "training/recipes").iterdir()}
    (digits,) = (line.split(maxsplit=3) for line in listed if line.startswith("flexae-digits "))
    assert digits[1:3] == ["digits", "1,500"]
    assert digits[3].startswith("FlexAE on scikit-learn's 8 × 8 digits")
    shown = command("recipes", "maskaae-mnist")[1]
    assert re.search(r"^latent_dim +48 +Dimensions m ", shown, re.MULTILINE)  # a constant of the model's file
    assert re.search(r"^critic_steps +5 +Critic updates for each auto-encoder update\. *$", shown, re.MULTILINE)
    assert re.search(r"^seed +0 +Seed of everything random\. *$", shown, re.MULTILINE)


def test_the_version_is_printed(command):
    assert command("--version") == (0, f"rae-serve {version('rae-serve')}\n", "")


@pytest.mark.parametrize("name", ["-", ""])
def test_an_output_has_a_name(fails, bundle, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for words in (["sample", bundle.path], ["reconstruct", bundle.path, "x.png"], ["train", "flexae-digits"]):
        fails([*words, "--out", name], "--out", f"not {name!r}")
    assert list(tmp_path.iterdir()) == []


def test_a_known_suffix_in_any_case_makes_a_file_and_any_other_name_a_folder(
    command, fails, bundle, engine, tmp_path
):
    expected = engine.sample(1, seed=7)
    words = ["sample", bundle.path, "--seed", 7, "--out"]
    for name in ("a.PNG", "a.Npz", "out-0.5", "v1.2", "faces.final", "./-"):
        assert command(*words, f"{tmp_path}/{name}")[0] == 0
    assert np.array_equal(Image.open(tmp_path / "a.PNG"), expected[0, ..., 0])
    assert np.array_equal(np.load(tmp_path / "a.Npz")["images"], expected)
    for name in ("out-0.5", "v1.2", "faces.final", "-"):
        assert np.array_equal(Image.open(tmp_path / name / "7-000000.png"), expected[0, ..., 0])
    (tmp_path / "folder.png").mkdir()
    assert command(*words, tmp_path / "folder.png")[0] == 0
    for name in ("a.GIF", "a.tiff", "a.npy"):
        fails(
            [*words, tmp_path / name], f"must end in .png or .npz, or be the name of a folder, not {tmp_path / name}"
        )
    assert command("decode", bundle.path, latents(engine, tmp_path), "--out", tmp_path / "b.JPG")[0] == 0
    with Image.open(tmp_path / "b.JPG") as picture:
        assert picture.format == "JPEG"
    fails(["decode", bundle.path, "nothing.npy", "--out", tmp_path / "b.txt"], "b.txt")  # before anything is read


def latents(engine: Engine, folder: Path) -> Path:
    np.save(folder / "latents.npy", engine.latents(engine.noise(2, seed=1)))
    return folder / "latents.npy"


def run(words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run `rae-serve` in a shell of its own."""
    line = f"{shlex.quote(sys.executable)} -m rae_serve.cli {words}"
    return subprocess.run(["bash", "-c", line], capture_output=True, timeout=60, cwd=ROOT, **options)


@pytest.mark.parametrize(
    "words", ["recipes", "recipes flexae-folder", "--help", "sample --help", "inspect {} --json", "--version"]
)
def test_a_reader_that_leaves_ends_a_command_quietly(bundle, words):
    ended = run(f"{words.format(bundle.path)} | true; exit ${{PIPESTATUS[0]}}")
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_full_disk_is_one_line(bundle):
    ended = run(f"inspect {bundle.path} > /dev/full")
    assert (ended.returncode, ended.stderr) == (2, b"rae-serve: the system: No space left on device\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_character_that_the_output_cannot_have_is_escaped(bundle, encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    for words in (f"inspect {bundle.path}", "recipes flexae-digits"):
        ended = run(words, env=environment)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert "8 × 8".encode(encoding, "backslashreplace") in ended.stdout
    assert run("--help", env=environment).returncode == 0
    ended = run("inspect $'no \\xe9'", env=environment)  # a name that is not UTF-8
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"there is no bundle at no \\udce9" in ended.stderr


@pytest.mark.parametrize("words", [["recipes"], ["train", "flexae-digits", "--steps", "100000", "--out", "run"]])
def test_ctrl_c_while_it_starts_is_one_line(tmp_path, words):
    for seconds in (0.2, 0.5, 0.9):
        process = subprocess.Popen(
            [sys.executable, "-c", STARTED, *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        if process.returncode != 0:  # it may have ended before the signal
            assert (process.returncode, err) in ((130, b"rae-serve: interrupted\n"), (-signal.SIGINT, b""))


# The first line of the entry point is behind it when this prints, and all other imports are to come.
STARTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from rae_serve.cli import interrupts
from rae_serve.cli.__main__ import main
end = interrupts.end_at_once
def ready():
    end()
    print("ready", flush=True)
    interrupts.end_at_once = end
interrupts.end_at_once = ready
main()
"""


def test_serve_starts_bentoml_with_what_was_given(command, bundle, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert command("serve", bundle.path, bundle.path.parent, "--port", port, "--host", "localhost")[0] == 0
    monkeypatch.setenv("RAE_SERVE_PORT", str(port))
    assert command("serve")[0] == 0
    (program, words, given), (_, _, usual) = calls
    assert (program, words[1:]) == (sys.executable, ["-m", "bentoml", "serve", "rae_serve.service:RaeServe"])
    assert given["RAE_SERVE_BUNDLES"] == f"{bundle.path}{os.pathsep}{bundle.path.parent}"
    assert (given["RAE_SERVE_PORT"], given["BENTOML_HOST"]) == (str(port), "localhost")
    assert usual == os.environ | {"BENTOML_HOST": "127.0.0.1"}  # the setting's own default of the bundles


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nothing"], "there is no folder nothing"),
        (["--port", 0], "--port: must be from 1 to 65535, not 0"),
        (["--port", "http"], "http"),
    ],
)
def test_servers_that_cannot_be(fails, words, text):
    fails(["serve", *words], text)


def test_a_port_in_use_is_one_line(fails):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fails(["serve", "--port", port], f"--port: {port} on 127.0.0.1 cannot be used (Address already in use")


def test_serve_without_bentoml_says_how_to_install_it(fails, monkeypatch):
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    monkeypatch.setattr(extras, "_origin", dict)  # installed from an index
    fails(["serve"], "this needs bentoml", "pip install 'rae-serve[server]'")


def test_help_lists_the_commands_from_training_to_use(command):
    out = command("--help")[1]
    listed = re.findall(r"^│ (\w+)", out.split("Commands")[1], re.MULTILINE)
    in_order = (
        "quickstart train fit recipes export evaluate compare study serve inspect verify upgrade sample "
        "attributes generate prepare encode decode reconstruct interpolate edit push pull"
    )
    assert listed == in_order.split()
    for name in listed:
        status, out, err = command(name, "--help")
        assert (status, err) == (0, "")
        assert f"rae-serve {name}" in out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["interpolate", "1:0", "1:1", "--steps", 0], "steps: must be from 1 to 10000, not 0"),
        (["interpolate", "1:0", "1:1", "--steps", 10_001], "steps: must be from 1 to 10000, not 10001"),
        (["interpolate", "1:0", "x.png", "--space", "noise"], "x.png: must be SEED:ROW"),
        (["decode", "__file__"], "is not a readable .npy file"),
    ],
)
def test_walks_that_cannot_be(fails, bundle, tmp_path, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    verb, *rest = (__file__ if word == "__file__" else word for word in words)
    fails([verb, bundle.path, *rest, "--out", "x.png"], text)
    assert list(tmp_path.iterdir()) == []
