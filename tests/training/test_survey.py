"""A look at collections of pictures, and what quickstart says and does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from rae_serve.bundle import Bundle
from training.quickstart import FOR_FEW, changes_for
from training.survey import HANDED, Survey, chirality, describe, repeats, spread


def test_the_spread_is_the_mean_over_pairs():
    features = np.random.default_rng(0).random((7, 5), np.float32)
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    pairs = [1 - directions[i] @ directions[j] for i in range(7) for j in range(i)]
    assert spread(features) == pytest.approx(np.mean(pairs), rel=1e-5)
    assert spread(np.ones((3, 4), np.float32)) == pytest.approx(0, abs=1e-6)


def test_repeats_are_found_though_brighter_and_compressed_anew():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (1500, 32, 32, 3), np.uint8)
    assert repeats(images) == 0
    images[1400:] = images[:100] + 20
    assert repeats(images) == pytest.approx(100 / 1500)


def test_digits_can_be_told_from_their_mirror_images_and_symmetric_collections_cannot():
    digits = (load_digits().images * 15.9).astype(np.uint8)[..., None]
    assert chirality(digits) > HANDED + 0.2
    both = np.where(np.random.default_rng(0).random((len(digits), 1, 1, 1)) < 0.5, digits, digits[:, :, ::-1])
    assert chirality(both) < HANDED
    assert chirality(np.full((10, 8, 8, 3), 9, np.uint8)) == 0.5


def test_few_pictures_and_handed_ones_are_not_mirrored():
    grey, *rest = (28, 28, 1), 0.0, 0.1
    assert not Survey(199, 0, grey, *rest, 0.5).mirrored
    assert not Survey(5_000, 0, grey, *rest, 0.9).mirrored
    assert changes_for(Survey(5_000, 0, grey, *rest, 0.5)) == ["horizontal_flip=true"]
    assert changes_for(Survey(400, 0, grey, *rest, 0.9)) == ["horizontal_flip=false", *FOR_FEW]


@pytest.mark.parametrize(
    ("survey", "said", "unsaid"),
    [
        (
            Survey(40, 0, (28, 28, 1), 0.0, 0.1, 0.5),
            ["40 pictures", "grey images of 28 × 28", "alike", "Fewer than 500", "smeared"],
            ["repeat", "Left out", "Mirrored", "softer"],
        ),
        (
            Survey(40, 0, (32, 32, 3), 0.0, 0.42, 0.5),
            ["of many kinds", "Fewer than 500 of many kinds", "not objects", "of one kind, help most"],
            ["softer", "mixtures", "Mirrored"],
        ),
        (
            Survey(900, 3, (32, 64, 3), 0.2, 0.3, 0.9),
            ["64 × 32", "colour", "of one kind", "pictures: 3.", "20%", "more variety"],
            ["Fewer", "Mirrored"],
        ),
        (
            Survey(13_000, 0, (64, 64, 3), 0.0, 0.4, 0.52),
            ["13,000", "many kinds", "Mirrored"],
            ["Fewer", "variety", "repeat"],
        ),
    ],
)
def test_the_description_says_what_to_expect(survey, said, unsaid):
    text = " ".join(describe(survey))
    assert all(words in text for words in said), text
    assert not any(words in text for words in unsaid), text


def test_quickstart_makes_a_model_and_goes_on_after_a_stop(tmp_path: Path):
    folder = tmp_path / "digits"
    folder.mkdir()
    for i, digit in enumerate(load_digits().images[:60]):
        Image.fromarray((digit * 15.9).astype(np.uint8)).resize((32, 32)).save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("no picture")
    words = [sys.executable, "-m", "rae_serve.cli", "quickstart", "digits", "--minutes", "0.05"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAE_SERVE_CACHE": str(tmp_path / "cache")}

    def run() -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stderr
        return done.stdout

    out = run()
    assert "60 pictures, prepared as grey images of 32 × 32 pixels" in out
    assert "cannot be read as pictures: 1." in out
    assert "3 pictures are held out, too few to judge" in out
    assert "exported/digits is ready" in out
    first = Bundle.load(tmp_path / "exported" / "digits")
    assert first.manifest.image.shape == (32, 32, 1)
    run()  # the run is finished: its bundle is made again
    assert Bundle.load(first.path).manifest.digest == first.manifest.digest
