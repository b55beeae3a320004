"""The images to evaluate on: those a model was trained on, and those it has not seen."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from training.data import dataset as data
from training.data import sources
from training.evaluation.subject import Subject

Rows = TypeVar("Rows", bound=np.ndarray)


class Images(NamedTuple):
    """Training images and held-out ones, uint8 [N, H, W, C]; `split` says which the latter are.

    `same` is whether the training images are those that the model was trained on, by their digest.
    """

    source: str
    train: Pixels
    held_out: Pixels
    split: str
    same: bool


def load(subject: Subject, source: str | None) -> Images:
    """The test split where the data set has one, else what training held out.

    Raises InvalidInput, naming `data`, where there is no source, or no way to tell held-out images: without a
    test split they are what is left of the very images that the model was trained on.
    """
    source = source or subject.source or subject.data_name
    shape = subject.preprocessing.model_dump()
    everything = data.load(source, subject.data_name, shape=shape)
    if len(everything.train) < subject.training_images:
        found = f"{source} has {len(everything.train):,} images, of which {subject.name} cannot have been trained on "
        raise InvalidInput("data", f"{found}{subject.training_images:,}; give --data what it was trained on")
    held = len(everything.train) - subject.training_images
    chosen = everything.holding_out(held)
    same = chosen.digest() == subject.data_digest
    train = everything.images[chosen.train if same else everything.train]
    if sources.has_test_split(source, subject.data_name):
        return Images(source, train, data.test_images(source, subject.data_name, shape), "test", same)
    if not same:
        raise InvalidInput(
            "data",
            f"{source} holds other images than {subject.name} was trained on, and no test split of its own: "
            "what the model has not seen cannot be told",
        )
    if held < 2:
        raise InvalidInput(
            "data", f"{subject.name} was trained on all of {source}: nothing is held out to compare with"
        )
    return Images(source, train, everything.images[chosen.validation], "validation", same)


def spaced(rows: Rows, count: int) -> Rows:
    """At most `count` of the rows, evenly spaced over them."""
    if len(rows) <= count:
        return rows
    chosen: Rows = rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)]
    return chosen
