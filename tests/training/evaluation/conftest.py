from __future__ import annotations

import pytest

from training.data import sources
from training.data.sources import Split
from training.evaluation.features.extractors import Extractor, load_extractor


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """Give the tests a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAE_SERVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def extractor() -> Extractor:
    import torch

    return load_extractor("cifar10", torch.device("cpu"))


@pytest.fixture(scope="session")
def digits():
    """A function that returns a split of scikit-learn's digits, uint8 [N, 8, 8, 1]."""

    def images(split: Split):
        return sources.read("digits", "digits", split)[1]

    return images
