"""Measure what `rae-serve quickstart` says of collections of pictures: their spread and their chirality.

    python -m benchmarks.kinds_of_pictures --data ../shared/data
    python -m benchmarks.kinds_of_pictures --data ../shared/data --folder faces

The collections are the classes of CIFAR-10 together and each alone, the digits of MNIST, and one digit alone.
--folder adds a folder of pictures. The spread is how far apart the features of two pictures are, and the chirality
how often a picture can be told from its mirror image.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.mnist_classifier import mnist
from rae_serve.arrays import Pixels
from training.data import dataset
from training.evaluation.features.cifar10_network import read
from training.evaluation.features.extractors import load_extractor
from training.survey import chirality, spread

COUNT = 1000  # pictures of each collection


def collections(data: Path, folders: list[str]) -> Iterator[tuple[str, Pixels]]:
    """Yield a name and images, uint8 [N, H, W, C], of each collection."""
    photographs, labels = read(data / "cifar10-jpeg.zip", "test")
    yield "CIFAR-10, all classes", photographs[:: len(photographs) // COUNT]
    for label in range(10):
        yield f"CIFAR-10, class {label}", photographs[labels == label][:COUNT]
    digits, labels = mnist(str(data), train=False)
    yield "MNIST", digits[:COUNT]
    yield "MNIST, sevens", digits[labels == 7][:COUNT]
    for folder in folders:
        yield folder, np.asarray(dataset.load(folder, "folder", shape={}).images[:COUNT])


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True, type=Path, help="holds cifar10-jpeg.zip and MNIST/raw")
    arguments.add_argument("--folder", action="append", default=[], help="a folder of pictures; may be repeated")
    given = arguments.parse_args()
    extractor = load_extractor("cifar10", torch.device("cpu"))
    for name, images in collections(given.data, given.folder):
        print(f"{name:24} {spread(extractor(images)):.3f} {chirality(images):.3f}", flush=True)
