from __future__ import annotations

from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from rae_serve.cli import training as cli
from rae_serve.errors import InvalidInput
from training.data.dataset import digest
from training.evaluation.features import extractors
from training.evaluation.features.extractors import CHUNK, EXTRACTORS, InceptionExtractor, extract, load_extractor

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


class Counting:
    """An extractor of two features that counts its images, and can be interrupted."""

    label, description = "FD-counting", "mean and deviation"

    def __init__(self, name: str, interrupted_after: int = 10**9) -> None:
        self.digest = name.ljust(64, "0")
        self.seen = 0
        self.interrupted_after = interrupted_after

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if self.seen >= self.interrupted_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        pixels = images.reshape(len(images), -1)
        return np.stack([pixels.mean(axis=1), pixels.std(axis=1)], axis=1)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (64, 48, 3), (128, 128, 3)])
def test_images_of_any_shape_and_mode_have_256_features(extractor, shape):
    found = extractor(noise(3, *shape))
    assert (found.shape, found.dtype) == ((3, 256), np.float32)
    assert np.isfinite(found).all()


def test_grey_is_three_equal_channels(extractor):
    grey = noise(2, 28, 28, 1)
    assert extractor(grey) == pytest.approx(extractor(grey.repeat(3, axis=3)), abs=1e-6)


def test_features_do_not_depend_on_the_batch(extractor):
    images = noise(5, 32, 32, 3)
    assert extractor(images)[3:] == pytest.approx(extractor(images[3:]), abs=1e-4)


def test_features_are_computed_once(digits):
    extractor, images = Counting("once"), digits("train")
    first = extract(extractor, images)
    assert (extractor.seen, len(first)) == (len(images), len(images))
    done = []
    assert (extract(extractor, images, lambda *counts: done.append(counts)) == first).all()
    assert extractor.seen == len(images)
    assert done[-1] == (len(images), len(images))


def test_other_images_or_another_network_are_computed_anew(digits):
    images = digits("test")
    extract(Counting("first"), images)
    other = Counting("other")
    extract(other, images)
    assert other.seen == len(images)
    extractor = Counting("first")
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    extract(extractor, changed)
    assert extractor.seen == len(images)


def test_what_was_interrupted_goes_on_where_it_stopped():
    images = noise(2 * CHUNK + 10, 4, 4, 1)
    extractor = Counting("interrupted", interrupted_after=CHUNK + 500)
    with pytest.raises(KeyboardInterrupt):
        extract(extractor, images)
    extractor.seen, extractor.interrupted_after = 0, 10**9
    assert len(extract(extractor, images)) == len(images)
    assert extractor.seen == len(images) - CHUNK


def test_a_damaged_cache_is_computed_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("RAE_SERVE_CACHE", str(tmp_path))
    images, extractor = noise(10, 4, 4, 1), Counting("damaged")
    first = extract(extractor, images)
    (kept,) = tmp_path.rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:50])
    assert (extract(extractor, images) == first).all()
    assert extractor.seen == 20


def test_the_digest_is_of_shape_and_pixels():
    images = noise(4, 2, 2, 1)
    assert digest(images) == digest(images.copy())
    assert digest(images) != digest(images.reshape(4, 4, 1, 1))


def test_the_command_line_names_every_extractor():
    assert {*get_args(get_type_hints(cli.evaluate)["network"])} == {*EXTRACTORS}


def test_inception_without_its_weights_says_where_to_have_them(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(InvalidInput, match=r"no route to host.*--weights"):
        load_extractor("inception", CPU)


def test_other_weights_than_inceptions_are_refused_unopened(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no pickle")
    with pytest.raises(InvalidInput, match="is not weights-inception"):
        load_extractor("inception", CPU, path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_extractor("inception", CPU, tmp_path / "none.pth")
    with pytest.raises(InvalidInput, match="--weights"):
        load_extractor("cifar10", CPU, path)


def test_inception_looks_through_torch_fidelity(monkeypatch, tmp_path):
    """With random weights: the test holds that images reach the network in the form that it takes."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    drawn: dict[str, torch.Tensor] = {}

    def draw(self: torch.nn.Module, state: object) -> None:
        drawn.update(self.state_dict())

    monkeypatch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", draw)
    path = tmp_path / "weights.pth"
    torch.save({}, path)
    monkeypatch.setattr(extractors, "_INCEPTION_SHA256", "")
    extractor = load_extractor("inception", CPU, path)
    assert isinstance(extractor, InceptionExtractor)
    assert extractor.label == "FID"
    assert extractor(noise(2, 28, 28, 1)).shape == (2, 2048)
    assert drawn
