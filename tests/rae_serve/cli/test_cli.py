from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rae_serve import extras, images


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
    fails(["sample", bundle.path, "--out", tmp_path / "mine.txt" / "x.png"], "/x.png cannot be written: Not a dir")
    fails(["sample", bundle.path, "--out", tmp_path / "no" / "such" / "x.png"], "x.png cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_damaged_bundle_is_named(fails, bundle, tmp_path):
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    data = bytearray((copy / "decoder.onnx").read_bytes())
    data[1000] ^= 1
    (copy / "decoder.onnx").write_bytes(data)
    for words in (["verify", copy], ["inspect", copy], ["sample", copy, "--out", tmp_path / "x.png"]):
        fails(words, "decoder.onnx is damaged")


def test_training_without_torch_says_how_to_install_it(fails, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "training"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(extras, "_origin", dict)  # installed from an index
    fails(["train", "flexae-digits"], "torch", "pip install 'rae-serve[train]'")


def test_help_lists_the_commands_from_training_to_use(command):
    out = command("--help")[1]
    listed = re.findall(r"^│ (\w+)", out.split("Commands")[1], re.MULTILINE)
    in_order = (
        "train recipes export evaluate study inspect verify sample attributes "
        "encode decode reconstruct interpolate edit"
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
