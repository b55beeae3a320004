"""A look at a collection of pictures before training: what is there, and what to expect of a model of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from rae_serve.arrays import Pixels
from training.data.batches import to_tensor
from training.data.dataset import Dataset
from training.evaluation.features.cifar10_network import SIDE, Cifar10Network
from training.evaluation.features.extractors import extract, load_extractor
from training.evaluation.metrics.distances import Features

# Mean cosine distances between the features of two pictures. `python -m benchmarks.kinds_of_pictures` measured .11 to
# .16 for digits, .20 to .33 for photographs of one class of CIFAR-10, and .41 for those of all classes.
ALIKE: Final = 0.18
ONE_KIND: Final = 0.35
# The chirality of photographs of CIFAR-10 is .47 to .58, that of digits .95, by the same measurement.
HANDED: Final = 0.65
FEW: Final = 500
MANY: Final = 5_000
_COMPARED: Final = 10_000  # the most pictures that are compared with each other, for repeats
_KINDS_FROM: Final = 2_000  # the most pictures whose features are compared
_SMALL_SIDE: Final = 16  # of the pictures that are compared for repeats
_REPEATED: Final = 0.999  # correlation of the pixels of two such pictures
_MIRRORED_FROM: Final = 200  # the fewest pictures of which chirality says something
_SPATIAL_LAYERS: Final = 10  # of the feature network: up to the third ReLU, before it pools over all places
_CELLS: Final = 4  # a side, to which the features of these layers are averaged


class Survey(NamedTuple):
    """What a collection of pictures is like.

    Attributes:
        images: How many pictures can be read.
        skipped: How many files cannot.
        shape: Height, width and channels of the prepared images.
        repeats: The share of pictures that nearly equal one before them.
        spread: The mean cosine distance between the features of two pictures.
        chirality: How often a picture can be told from its mirror image, from 0.5 (chance) to 1.
    """

    images: int
    skipped: int
    shape: tuple[int, int, int]
    repeats: float
    spread: float
    chirality: float

    @property
    def mirrored(self) -> bool:
        """Whether mirrored pictures look like the others, so that a model may learn from them too."""
        return self.images >= _MIRRORED_FROM and self.chirality < HANDED


def survey(dataset: Dataset) -> Survey:
    """Look at the images of a dataset, those held out included."""
    rows = np.sort(np.concatenate([dataset.train, dataset.validation]))
    chosen = np.random.default_rng(0).permutation(rows)
    device = torch.device("cpu")
    some = np.asarray(dataset.images[np.sort(chosen[:_KINDS_FROM])])
    return Survey(
        images=len(rows),
        skipped=len(dataset.skipped),
        shape=dataset.preprocessing.shape,
        repeats=repeats(np.asarray(dataset.images[np.sort(chosen[:_COMPARED])])),
        spread=spread(extract(load_extractor("cifar10", device), some)),
        chirality=chirality(some),
    )


def describe(found: Survey) -> Iterator[str]:
    """Yield sentences about a collection, and about what to expect of a model of it."""
    height, width, channels = found.shape
    colour = "grey" if channels == 1 else "colour"
    yield f"{found.images:,} pictures, prepared as {colour} images of {width} × {height} pixels."
    if found.skipped:
        yield f"Left out, because they cannot be read as pictures: {found.skipped:,}."
    if found.repeats > 0.01:
        yield f"About {found.repeats:.0%} of the pictures nearly repeat another one, and teach the model nothing new."
    if found.spread < ALIKE:
        kind, expectation = "much alike", "Expect pictures that look like yours, somewhat softer."
    elif found.spread < ONE_KIND:
        kind, expectation = "of one kind", "Expect recognisable pictures, softer than yours, some of them odd."
    else:
        kind, expectation = (
            "of many kinds",
            "Expect blurred impressions of scenes and colours, not objects: a small auto-encoder cannot hold so many "
            "kinds. A folder of one kind gives better pictures.",
        )
    if found.images < FEW and found.spread < ONE_KIND:
        expectation = f"Fewer than {FEW} give mixtures of those few, some of them smeared. More pictures help most."
    elif found.images < FEW:
        expectation = (
            f"Fewer than {FEW} of many kinds give smears in which some of them overlap, not objects. "
            "More pictures, of one kind, help most."
        )
    yield f"The pictures are {kind} (spread {found.spread:.2f}). {expectation}"
    if found.mirrored:
        yield "Mirrored pictures look like the others, so the model learns from them too."
    if FEW <= found.images < MANY:
        yield f"{MANY:,} pictures and more would give more variety."


def spread(features: Features) -> float:
    """Return the mean cosine distance between two different rows of features, [N, D]."""
    directions = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    count, total = len(directions), directions.sum(axis=0, dtype=np.float64)
    # The sum over all pairs of different rows is that over all pairs, less the squared length of each row.
    own = np.square(directions, dtype=np.float64).sum()
    return float(1.0 - (total @ total - own) / (count * (count - 1)))


@torch.no_grad()
def chirality(images: Pixels) -> float:
    """Return how often a linear score tells an image, uint8 [N, H, W, C], from its mirror image.

    The score is fitted to the features of every other image less those of its mirror image, and tried on the rest.
    "Visual chirality": https://arxiv.org/abs/2006.09512.
    """
    layers = Cifar10Network.load().features[:_SPATIAL_LAYERS]

    def features(part: Pixels) -> Tensor:
        x = to_tensor(part, torch.device("cpu")).expand(-1, 3, -1, -1)
        x = interpolate(x, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        found = layers(x), layers(x.flip(3))
        one, other = (adaptive_avg_pool2d(maps, _CELLS).flatten(1) for maps in found)
        return (one - other).double()

    differences = torch.cat([features(images[i : i + 1000]) for i in range(0, len(images), 1000)])
    fitted, tried = differences[::2], differences[1::2]
    # Ridge regression of 1 on the differences; the penalty is ten times the mean square of a feature's differences.
    gram = fitted.T @ fitted
    penalty = 10.0 * gram.diagonal().mean().clamp(min=1e-9) * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram + penalty, fitted.sum(dim=0))
    scores = tried @ weights
    return float(((scores > 0).double() + 0.5 * (scores == 0).double()).mean())


def repeats(images: Pixels) -> float:
    """Return the share of images, uint8 [N, H, W, C], that nearly equal one before them."""
    small = normalize(torch.cat([_small(images[i : i + 1000]) for i in range(0, len(images), 1000)]), dim=1)
    repeated = 0
    for start in range(0, len(small), 1000):
        piece = small[start : start + 1000]
        # Row i of the piece may be compared with the images before it: the columns below start + i.
        close = (piece @ small[: start + len(piece)].T).tril(diagonal=start - 1) > _REPEATED
        repeated += int(close.any(dim=1).sum())
    return repeated / len(small)


def _small(images: Pixels) -> Tensor:
    """Return the pixels of small grey versions of images, less their mean, [N, D]."""
    grey = to_tensor(images, torch.device("cpu")).mean(dim=1, keepdim=True)
    size = (_SMALL_SIDE, _SMALL_SIDE)
    pixels = interpolate(grey, size=size, mode="bilinear", antialias=True, align_corners=False).flatten(1)
    return pixels - pixels.mean(dim=1, keepdim=True)
