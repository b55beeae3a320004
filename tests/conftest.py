"""A small FlexAE, trained for a moment on real digits and exported, for all tests that need a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from training import recipe as recipes
from training.export import export
from training.recipe import Recipe
from training.runs import Run, load_data
from training.trainer import Trainer

SMALL = (
    "steps=30",
    "log_every=5",
    "sample_every=15",
    "filters=4",
    "hidden=16",
    "prior_hidden=16",
    "critic_hidden=16",
)
MNIST = Path(__file__).parents[1] / ".." / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "mnist" in item.keywords and not (MNIST / "MNIST").is_dir():
            item.add_marker(pytest.mark.skip(reason="the real MNIST is not in ../shared/data"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # these models are too small to share


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return recipes.load("flexae-digits", SMALL)


@pytest.fixture(scope="session")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "digits"
    dataset = load_data(recipe, "digits")
    run = Run.create(path, recipe, dataset, "digits")
    Trainer(recipe, dataset, path, torch.device("cpu")).fit()
    return run


@pytest.fixture(scope="session")
def bundle(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(run, tmp_path_factory.mktemp("bundles") / "digits")


@pytest.fixture(scope="session")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle, device="cpu")
