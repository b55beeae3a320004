"""Read the labels of data sets by name. A label is a class, or an attribute of CelebA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.labels import Labelled
from training.data import sources


def labelled(data: str, data_set: str) -> Labelled:
    """Return the training images of a data set and their labels.

    Args:
        data: A data set by name, or a folder that holds one; see `sources.read`.
        data_set: The data set to read from a folder that holds several.

    Raises:
        InvalidInput: naming `data`, if the data set has no labels.
    """
    if data == "digits":
        from sklearn.datasets import load_digits

        classes = load_digits().target[: sources.DIGITS_TRAIN]
        return _by_class(data, sources.read(data, data_set, "train")[1], classes, [str(k) for k in range(10)])
    name, pictures = sources.read(data, data_set, "train")
    root = sources.cache_folder() / "data" if data in sources.TORCHVISION else Path(data)
    if name not in sources.TORCHVISION:
        raise InvalidInput("data", f"{data!r} has no labels; give a folder of class folders, or --labels")
    kind = sources.torchvision_class(name)
    if name == "celeba":
        celeba = kind(root, split="train", target_type="attr")
        return Labelled(name, list(pictures), [n for n in celeba.attr_names if n], celeba.attr.numpy() == 1)
    found = kind(root, train=True)
    names = [str(k) for k in range(10)] if name == "mnist" else list(found.classes)
    return _by_class(name, pictures, found.targets, names)


def _by_class(data: str, pictures: Pixels | list[Path], classes: npt.ArrayLike, names: list[str]) -> Labelled:
    """Return labelled images in which class k, of `classes` [N], is attribute k."""
    return Labelled(data, pictures, names, np.asarray(classes)[:, None] == np.arange(len(names)))
