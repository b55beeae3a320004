"""Make `tests/data/digits`, the bundle of the tests of the library and the server: python tests/data/make_bundle.py

A small FlexAE, trained for a moment on scikit-learn's digits. Only this script needs rae-serve[train]: the tests read
the bundle as it is committed. `tests/data/version-1` is a bundle as an earlier release wrote it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

from training import recipe as recipes
from training.export.bundle import export
from training.runs import Run, load_data
from training.trainer import Trainer

BUNDLE = Path(__file__).parent / "digits"
SMALL = (
    "steps=30",
    "log_every=5",
    "sample_every=15",
    "filters=4",
    "hidden=16",
    "prior_hidden=16",
    "critic_hidden=16",
)


def train(path: Path) -> Run:
    """Train the small FlexAE, and leave its run at `path`."""
    recipe = recipes.load("flexae-digits", SMALL)
    dataset = load_data(recipe, "digits")
    run = Run.create(path, recipe, dataset, "digits")
    Trainer(recipe, dataset, path, torch.device("cpu")).fit()
    return run


def main() -> None:
    """Replace the bundle."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(train(Path(folder) / "run"), Path(folder) / "digits")
        shutil.rmtree(BUNDLE, ignore_errors=True)
        shutil.copytree(bundle.path, BUNDLE)
    print(f"{BUNDLE}: digest {bundle.manifest.digest}")


if __name__ == "__main__":
    main()
