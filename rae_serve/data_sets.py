"""The data sets that have a name, and how to tell the folder of one from a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# Files that torchvision keeps inside the root of each data set, and nobody else.
_TORCHVISION_FILES: Final = {
    "mnist": "MNIST/raw/*-ubyte*",
    "fashion-mnist": "FashionMNIST/raw/*-ubyte*",
    "cifar10": "cifar-10-batches-py/*batch*",
    "celeba": "celeba/list_*.txt",
}
NAMES: Final = ("digits", "synthetic-8", "synthetic-16", *_TORCHVISION_FILES)
# The names that some of them have on the Hugging Face Hub.
ON_THE_HUB: Final = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
}


def found_in(folder: Path, preferred: str) -> str | None:
    """Return the name of the torchvision data set in a folder: the preferred one if it is there, else the first.

    Any other folder, even one with a subfolder named MNIST or celeba, is a folder of pictures: the result is None.
    """
    found = [name for name, files in _TORCHVISION_FILES.items() if any(folder.glob(files))]
    return preferred if preferred in found else next(iter(found), None)
