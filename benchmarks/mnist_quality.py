"""Measure how good the digits of bundles and runs are: Fréchet distances, reconstruction errors, shares of classes.

    python -m benchmarks.mnist_quality exported/flexae-mnist-small --data ../shared/data [--write]
    python -m benchmarks.mnist_quality comparison/runs/* --data ../shared/data

The 10,000 test images are compared with 10,000 generated images of seed 0, with their own reconstructions, and with
10,000 training images, on the features of benchmarks/mnist_classifier. Several models are a table without the figures
that are the same for all. With --write, the figures are also stored in the manifest of each bundle.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from benchmarks.mnist_classifier import Classifier, mnist
from rae_serve import bundle as bundles
from rae_serve.arrays import Pixels
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.manifest import MANIFEST, Figure
from training.evaluation.metrics.distances import frechet_distance
from training.evaluation.metrics.pixels import mse
from training.inference import Inference
from training.runs import Run

COUNT = 10_000
_COLUMNS = ("fd_generated", "fd_reconstructed", "mse_reconstructed", "top_probability")
NETWORK = "128 features of benchmarks/mnist_classifier"


class Generator(Protocol):
    """What makes digits: an engine, or a model of another library."""

    def sample(self, count: int, /, *, seed: int) -> Pixels:
        """Return generated images, uint8 [count, H, W, C]."""
        ...

    def reconstruct(self, images: Pixels, /) -> Pixels:
        """Return images, uint8 [N, H, W, C], encoded and decoded."""
        ...


def measure(model: Generator, root: str) -> dict[str, Figure]:
    """Return the figures of a model by name. `root` is the folder that holds MNIST/raw."""
    classifier = Classifier.load()
    test, labels = mnist(root, train=False)
    train = mnist(root, train=True)[0][:COUNT]
    reference, probabilities = classifier.classify(test)
    generated, generated_probabilities = classifier.classify(model.sample(COUNT, seed=0))
    reconstructions = model.reconstruct(test)
    reconstructed, _ = classifier.classify(reconstructions)
    shares = np.bincount(generated_probabilities.argmax(1), minlength=10) / COUNT
    against = f"against the {len(test):,} test images, {NETWORK}"
    sampled = f"{COUNT:,} images of seed 0"
    return {
        "fd_generated": _figure(frechet_distance(generated, reference), f"{sampled} {against}"),
        "fd_reconstructed": _figure(frechet_distance(reconstructed, reference), f"the test images {against}"),
        "mse_reconstructed": _figure(mse(reconstructions, test).mean(), "the test images, pixels in [0, 1]"),
        "fd_training": _figure(
            frechet_distance(classifier.classify(train)[0], reference),
            f"{COUNT:,} training images {against}: the limit",
        ),
        "top_probability": _figure(generated_probabilities.max(1).mean(), f"mean over {sampled}"),
        "smallest_class": _figure(shares.min(), f"share of {sampled}"),
        "largest_class": _figure(shares.max(), f"share of {sampled}"),
        "classifier_accuracy": _figure((probabilities.argmax(1) == labels).mean(), "on the test images"),
    }


def _figure(value: float, protocol: str) -> Figure:
    return Figure(value=round(float(value), 4), protocol=protocol)


def heading(first: str) -> str:
    """Return the heading of a table of models, whose first column names them."""
    return f"{first:32}" + "".join(f"{column:>19}" for column in _COLUMNS)


def row(name: str, figures: dict[str, Figure]) -> str:
    """Return the row of a model."""
    return f"{name:32}" + "".join(f"{figures[column].value:19.4f}" for column in _COLUMNS)


def _load(path: Path) -> Generator:
    """Load a bundle, or the last checkpoint of a run."""
    if (path / MANIFEST).exists():
        return Engine(Bundle.load(path), device="cpu")
    return Inference(Run.open(path).load()[0], torch.device("cpu"))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path, nargs="+", help="folders of bundles or of runs")
    arguments.add_argument("--data", required=True, help="the folder that holds MNIST/raw")
    arguments.add_argument("--write", action="store_true", help="store the figures in the manifests of the bundles")
    given = arguments.parse_args()
    alone = len(given.model) == 1
    if not alone:
        print(heading("model"), flush=True)
    for path in given.model:
        figures = measure(_load(path), given.data)
        if alone:
            for name, figure in figures.items():
                print(f"{name:20} {figure.value:8.4f}  {figure.protocol}")
        else:
            print(row(path.name, figures), flush=True)
        if given.write:
            bundles.annotate(Bundle.load(path), quality=figures)
