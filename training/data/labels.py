"""The labels of data sets that are known by name: every class, or every attribute of CelebA, is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rae_serve.errors import InvalidInput
from rae_serve.labels import Labelled
from training.data import sources


def labelled(data: str, known_as: str) -> Labelled:
    """The training images of `data` (a name, or the folder of the set `known_as`) and their labels.

    Raises InvalidInput, naming `data`, where there are none.
    """
    if data == "digits":
        from sklearn.datasets import load_digits

        classes = load_digits().target[: sources.DIGITS_TRAIN]
        return _by_class(data, sources.read(data, known_as, "train")[1], classes, [str(k) for k in range(10)])
    name, pictures = sources.read(data, known_as, "train")
    root = sources.cache_folder() / "data" if data in sources.TORCHVISION else Path(data)
    if name not in sources.TORCHVISION:
        raise InvalidInput("data", f"{data!r} has no labels; give a folder of class folders, or --labels")
    from torchvision import datasets

    kind = getattr(datasets, sources.TORCHVISION[name][0])
    if name == "celeba":
        celeba: Any = kind(root, split="train", target_type="attr")
        return Labelled(name, list(pictures), [n for n in celeba.attr_names if n], celeba.attr.numpy() == 1)
    found: Any = kind(root, train=True)
    names = [str(k) for k in range(10)] if name == "mnist" else list(found.classes)
    return _by_class(name, pictures, found.targets, names)


def _by_class(data: str, pictures: Any, classes: Any, names: list[str]) -> Labelled:
    return Labelled(data, pictures, names, np.asarray(classes)[:, None] == np.arange(len(names)))
