"""The images of an evaluation: those that the model was trained on, and those that it has not seen."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.files import printable
from training.data import dataset, sources
from training.data.dataset import Dataset
from training.evaluation.subject import Subject
from training.recipe import Recipe

Scalar = TypeVar("Scalar", bound=np.generic)


class Images(NamedTuple):
    """Training images and held-out images, uint8 [N, H, W, C] each.

    Attributes:
        source: The data set, as `--data` names it.
        train: Training images.
        held_out: Images that the model has not seen.
        split: Which images are held out: "test" or "validation".
        same: Whether the digest of `train` is that of the images that the model was trained on.
    """

    source: str
    train: Pixels
    held_out: Pixels
    split: str
    same: bool


def load(subject: Subject, source: str | None) -> Images:
    """Load the images to evaluate a model on.

    The held-out images are the test split if the data set has one, otherwise what training held out.

    Args:
        subject: The model.
        source: The data set, as `--data` names it; by default that of the training.

    Raises:
        InvalidInput: The data set cannot be read, has fewer images than the model was trained on, or has no test
            split while its held-out images cannot be told from the training images.
    """
    data_name = subject.training.data
    source = source or subject.default_source()
    shape = subject.preprocessing.model_dump()
    everything = dataset.load(source, data_name, shape=shape)
    if len(everything.train) < subject.training.images:
        counts = f"{source} has {len(everything.train):,} images, but {subject.name} was trained on"
        remedy = "give --data the data set that it was trained on"
        raise InvalidInput("data", f"{counts} {subject.training.images:,}; {remedy}")
    held = len(everything.train) - subject.training.images
    chosen = everything.holding_out(held)
    same = chosen.digest() == subject.training.data_digest
    train = everything.images[chosen.train if same else everything.train]
    if sources.has_test_split(source, data_name):
        return Images(printable(source), train, dataset.test_images(source, data_name, shape), "test", same)
    if not same:
        raise InvalidInput(
            "data",
            f"{source} has no test split and holds other images than {subject.name} was trained on, "
            "so it is unknown which of its images the model has not seen",
        )
    if held < 2:
        raise InvalidInput("data", f"{subject.name} was trained on all of {source}: no image is held out")
    return Images(printable(source), train, everything.images[chosen.validation], "validation", same)


def of_dataset(chosen: Dataset, recipe: Recipe, source: str) -> Images:
    """Return the images of a training, and the test split or, without one, the images that the training holds out.

    Args:
        chosen: The images of the training.
        recipe: The recipe of the training.
        source: The data set, as `--data` names it.
    """
    train = chosen.images[chosen.train]
    if sources.has_test_split(source, recipe.data):
        held_out = dataset.test_images(source, recipe.data, chosen.preprocessing.model_dump())
        return Images(printable(source), train, held_out, "test", True)
    return Images(printable(source), train, chosen.images[chosen.validation], "validation", True)


def spaced(rows: npt.NDArray[Scalar], count: int) -> npt.NDArray[Scalar]:
    """Return at most `count` of the rows, evenly spaced."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
