"""The commands that train, export and list recipes, as users type them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.preprocessing import read_picture

WIDTHS = ("hidden", "prior_hidden", "critic_hidden")


def test_recipes_are_listed(command):
    status, out, _ = command("recipes")
    assert status == 0
    for recipe in ("flexae-digits", "flexae-mnist", "flexae-mnist-small"):
        assert recipe in out


def test_from_training_to_images(command, tmp_path):
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    small = [
        word for key in ("filters=4", "hidden=8", "prior_hidden=8", "critic_hidden=8") for word in ("--set", key)
    ]
    status, out, err = command("train", "flexae-digits", "--steps", 3, "--seed", 5, "--out", run, *small)
    assert (status, err) == (0, "")
    assert f"rae-serve export {run}" in out
    assert command("export", run, "--out", bundle, "--precision", "float16", "--no-generator")[0] == 0
    assert command("verify", bundle)[0] == 0
    assert command("upgrade", bundle, "--generator")[1] == f"{bundle}: version 2, added generator.onnx\n"
    status, out, _ = command("verify", bundle)
    assert status == 0
    assert "7 files match" in out
    assert "float16-weights" in command("inspect", bundle)[1]
    assert "seed 5" in command("inspect", bundle)[1]
    assert json.loads(command("inspect", bundle, "--json")[1])["training"]["steps"] == 3


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["train", "flexae-digit"], "did you mean flexae-digits?"),
        (["train", "flexae-digits", "--set", "latent_dims=4"], "latent_dims"),
        (["train", "flexae-digits", "--set", "latent_dim=four"], "latent_dim"),
        (["train", "flexae-digits", "--set", "latent_dim"], "key=value"),
        (["train", "flexae-digits", "--set", "noise_dim=3"], "noise_dim"),
        (
            ["train", "flexae-digits", "--set", "prior_generator_lr=-1"],
            "prior_generator_lr: input should be greater than 0, not -1",
        ),
        (["train", "flexae-digits", "--steps", "0"], "steps"),
        (["train", "flexae-digits", "--steps", "many"], "many"),
        (["train", "flexae-digits", "--seed", "-1"], "seed"),
        (["train", "flexae-digits", "--data", "imagenet"], "'imagenet' is neither"),
        (["train", "flexae-digits", "--device", "tpu"], "tpu"),
        (["train", "flexae-digits", "--resume"], "no run"),
        (["export", "nothing"], "no run"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(fails, tmp_path, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    fails(words, text)
    assert list(tmp_path.iterdir()) == []


def test_folders_in_use_are_left_alone(fails, run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    fails(["export", run.path, "--out", tmp_path], "in use")
    for words in (["train", "flexae-digits"], ["evaluate", run.path], ["study", "priors-2d"]):
        fails([*words, "--out", tmp_path], "in use")
    fails(["train", "flexae-digits", "--out", run.path], "in use by a run; go on with it by --resume")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_export_replaces_a_bundle_if_it_is_told_to(command, fails, run, tmp_path):
    bundle = tmp_path / "bundle"
    assert command("export", run.path, "--out", bundle)[0] == 0
    (tmp_path / "link").symlink_to("bundle")
    fails(["export", run.path, "--out", bundle], f"{bundle} holds a bundle; --overwrite replaces it")
    assert (bundle / "generator.onnx").is_file()
    assert command("export", run.path, "--out", tmp_path / "link", "--no-generator", "--overwrite")[0] == 0
    assert not (bundle / "generator.onnx").exists()
    assert {path.name for path in bundle.iterdir()} == {*Bundle.load(bundle).contents, "README.md", "manifest.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "link"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").write_text("mine")
    fails(["export", run.path, "--out", tmp_path / "mine", "--overwrite"], "in use")


def test_a_folder_that_cannot_be_is_refused_before_the_work(fails, run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for module, name in (("runs.Run", "load"), ("commands", "load_data"), ("studies.study.Study", "trained")):
        monkeypatch.setattr(f"training.{module}.{name}", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("training.evaluation.commands.load_extractor", lambda *_: 1 / 0)
    for words in (["export", run.path], ["train", "flexae-digits"], ["evaluate", run.path], ["study", "priors-2d"]):
        fails([*words, "--out", tmp_path / "file" / "x"], f"file/x cannot be written: {tmp_path / 'file'} is a file")


def test_attributes_of_a_known_data_set(command, bundle, tmp_path):
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    assert command("attributes", copy, "--data", "digits")[0] == 0
    assert list(Bundle.load(copy).manifest.attributes) == [str(k) for k in range(10)]


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """A folder `pictures` of colours, and the table that says which are warm, as CelebA's would."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(1, 129):
        warm = bool(rng.random() < 0.5)
        red, blue = rng.integers((150, 0), (256, 106)) if warm else rng.integers((0, 150), (106, 256))
        file = root / "pictures" / f"{number:06d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (89, 109), (int(red), int(rng.integers(256)), int(blue))).save(file)
        rows.append(f"{number:06d}.jpg {' 1' if warm else '-1'} {' 1' if rng.random() < 0.5 else '-1'}")
    (root / "list_attr_celeba.txt").write_text("\n".join([str(len(rows)), "Warm Young ", *rows, ""]))
    return root


def test_an_attribute_of_ones_own_pictures_follows_the_strength(colours, command, tmp_path):
    """From a folder of pictures and CelebA's table of them to edits."""
    run, bundle = tmp_path / "run", tmp_path / "bundles" / "mine"
    small = ("steps=120", "batch_size=16", "perceptual=0", "filters=4", *(f"{key}=16" for key in WIDTHS))
    words = [word for setting in small for word in ("--set", setting)]
    assert command("train", "flexae-folder", "--data", colours / "pictures", "--out", run, *words)[0] == 0
    assert command("export", run, "--out", bundle)[0] == 0
    table = colours / "list_attr_celeba.txt"
    assert command("attributes", bundle, "--data", colours / "pictures", "--labels", table)[0] == 0
    engine = Engine(Bundle.load(bundle), device="cpu")
    picture = read_picture((colours / "pictures" / "000001.png").read_bytes())

    def warmth(code: np.ndarray, strengths: list[int]) -> np.ndarray:
        edited = engine.edit(code, "Warm", strengths).astype(float)
        return (edited[..., 0] - edited[..., 2]).mean(axis=(1, 2))

    for code in (engine.encode(engine.manifest.image(picture)[None]), engine.latents(engine.noise(1, seed=5))):
        # Away from what it is: a picture as blue as the model can make it grows no bluer.
        away = -1 if warmth(code, [0])[0] > 0 else 1
        assert (away * np.diff(warmth(code, [0, away, 2 * away, 3 * away])) > 0).all()
    engine.close()
