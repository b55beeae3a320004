from __future__ import annotations

import numpy as np
import pytest
import torch

from rae_serve.errors import InvalidInput
from training.evaluation.features import extractors as module
from training.evaluation.features.extractors import CHUNK, InceptionFeatures, digest, features, network

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


class Counting:
    """A network of two features that counts what it is shown, and may be interrupted."""

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
def test_images_of_any_shape_and_mode_have_256_features(look, shape):
    found = look(noise(3, *shape))
    assert (found.shape, found.dtype) == ((3, 256), np.float32)
    assert np.isfinite(found).all()


def test_grey_is_three_equal_channels(look):
    grey = noise(2, 28, 28, 1)
    assert look(grey) == pytest.approx(look(grey.repeat(3, axis=3)), abs=1e-6)


def test_features_do_not_depend_on_the_batch(look):
    images = noise(5, 32, 32, 3)
    assert look(images)[3:] == pytest.approx(look(images[3:]), abs=1e-4)


def test_features_are_computed_once(digits):
    look, images = Counting("once"), digits("train")
    first = features(look, images)
    assert (look.seen, len(first)) == (len(images), len(images))
    done = []
    assert (features(look, images, done.append) == first).all()
    assert look.seen == len(images)
    assert sum(done) == len(images)


def test_other_images_or_another_network_are_computed_anew(digits):
    images = digits("test")
    features(Counting("first"), images)
    other = Counting("other")
    features(other, images)
    assert other.seen == len(images)
    look = Counting("first")
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    features(look, changed)
    assert look.seen == len(images)


def test_what_was_interrupted_goes_on_where_it_stopped():
    images = noise(2 * CHUNK + 10, 4, 4, 1)
    look = Counting("interrupted", interrupted_after=CHUNK + 500)
    with pytest.raises(KeyboardInterrupt):
        features(look, images)
    look.seen, look.interrupted_after = 0, 10**9
    assert len(features(look, images)) == len(images)
    assert look.seen == len(images) - CHUNK


def test_a_damaged_cache_is_computed_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("RAE_SERVE_CACHE", str(tmp_path))
    images, look = noise(10, 4, 4, 1), Counting("damaged")
    first = features(look, images)
    (kept,) = tmp_path.rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:50])
    assert (features(look, images) == first).all()
    assert look.seen == 20


def test_the_digest_is_of_shape_and_pixels():
    images = noise(4, 2, 2, 1)
    assert digest(images) == digest(images.copy())
    assert digest(images) != digest(images.reshape(4, 4, 1, 1))


def test_inception_without_its_weights_says_where_to_have_them(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(InvalidInput, match=r"no route to host.*--weights"):
        network("inception", CPU)


def test_other_weights_than_inceptions_are_refused_unopened(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no pickle")
    with pytest.raises(InvalidInput, match="is not weights-inception"):
        network("inception", CPU, path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        network("inception", CPU, tmp_path / "none.pth")
    with pytest.raises(InvalidInput, match="--weights"):
        network("cifar10", CPU, path)


def test_inception_looks_through_torch_fidelity(monkeypatch, tmp_path):
    """Its network with weights of chance: what is held is that images reach it as it wants them."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    drawn: dict[str, torch.Tensor] = {}

    def draw(self: torch.nn.Module, state: object) -> None:
        drawn.update(self.state_dict())

    monkeypatch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", draw)
    path = tmp_path / "weights.pth"
    torch.save({}, path)
    monkeypatch.setattr(module, "_INCEPTION_SHA256", "")
    look = network("inception", CPU, path)
    assert isinstance(look, InceptionFeatures)
    assert look.label == "FID"
    assert look(noise(2, 28, 28, 1)).shape == (2, 2048)
    assert drawn
