"""Find directions in latent space along which an attribute of the image changes, from labelled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, islice
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from rae_serve import labels
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput
from rae_serve.labels import Labelled
from rae_serve.manifest import Attribute

Method = Literal["difference", "linear"]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MIN_IMAGES: Final = 2  # with the attribute, and as many without it
FOLDS: Final = 5  # parts of the images that are held out in turn, to measure how good a direction is
# At an AUC of 0.75, the class means are about one standard deviation apart along the direction (AUC = Φ(d/√2) for
# Gaussians). Below it, strength 1 moves an image no farther than images of the same class differ.
WEAK: Final = 0.75
# Fewer images on either side leave the standard error of an AUC of 0.85 above 0.06 (Hanley and McNeil 1982,
# https://doi.org/10.1148/radiology.143.1.7063747), and so its 95 % interval wider than ±0.12.
FEW: Final = 20
_METHOD_TEXT: Final[dict[Method, str]] = {
    "difference": "difference of the class means",
    "linear": "normal of a logistic regression",
}
_CHUNK: Final = 256  # images that are encoded at once
_NEWTON_STEPS: Final = 25  # logistic regression converges in fewer than ten
_CONVERGED: Final = 1e-9  # Newton's method squares its error, so a further step would change nothing


def find(engine: Engine, labelled: Labelled, method: Method) -> dict[str, Attribute]:
    """Encode labelled images and find the direction of every attribute, as `find_in` does."""
    codes, has = encoded(engine, labelled)
    return find_in(codes, has, labelled.names, labelled.data, method)


def find_in(
    codes: Float64, has: Bools, names: Sequence[str], data: str, method: Method = "difference"
) -> dict[str, Attribute]:
    """Find the direction of every attribute, and measure how good it is.

    Two attributes of which every image has exactly one are the two ends of one direction. The direction has the name
    of the second attribute, and the first is its opposite.

    Args:
        codes: Latents of the images [N, D].
        has: Which attributes each image has [N, A].
        names: The names of the A attributes.
        data: The name of the images, for the record.
        method: "difference" is the difference of the class means, "linear" the normal of a logistic regression.

    Returns:
        The directions, by the names of the attributes.

    Raises:
        InvalidInput: An attribute has too few images with or without it; the field is `labels`.
    """
    search = difference if method == "difference" else linear
    opposites = _opposites(has)
    found = {}
    for k, name in enumerate(names):
        if k in opposites.values():
            continue
        yes, no = int(has[:, k].sum()), int((~has[:, k]).sum())
        if min(yes, no) < MIN_IMAGES:
            problem = f"{name!r}: {yes} readable images have it and {no} do not; {MIN_IMAGES} of each are needed"
            raise InvalidInput("labels", problem)
        found[name] = Attribute(
            direction=[float(x) for x in search(codes, has[:, k]).astype(np.float32)],
            source=f"{_METHOD_TEXT[method]}, images of {data}",
            opposite=names[opposites[k]] if k in opposites else None,
            images=(yes, no),
            auc=_held_out_auc(codes, has[:, k], search),
        )
    return found


def encoded(engine: Engine, labelled: Labelled) -> tuple[Float64, Bools]:
    """Return the latents [N, D] of the readable images, at most MAX_IMAGES, and which attributes these have [N, A].

    Raises:
        InvalidInput: Most files are no pictures; the field is `data`.
    """
    labelled = labelled.subsampled()
    rows: list[int] = []
    codes: list[npt.NDArray[np.float32]] = []
    images = labels.pixels(labelled, engine.manifest.image)
    while chunk := list(islice(images, _CHUNK)):
        rows += [row for row, _ in chunk]
        codes.append(engine.encode(np.stack([image for _, image in chunk])))
    count = len(labelled.has)
    if 2 * len(rows) < count:
        raise InvalidInput("data", f"{count - len(rows)} of {count} files are no readable pictures; remove them")
    return np.concatenate(codes).astype(np.float64), labelled.has[rows]


def merge(old: Mapping[str, Attribute], new: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """Return both sets of attributes. An old one gives way to a new one if the two share the name of an end."""
    replaced = {*new, *(attribute.opposite for attribute in new.values())} - {None}
    kept = {name: attribute for name, attribute in old.items() if not replaced & {name, attribute.opposite}}
    return kept | dict(new)


def doubt(attribute: Attribute) -> str | None:
    """Return what speaks against the direction of an attribute, and what to do about it; None if nothing does."""
    if attribute.auc is None:
        return f"Not measured: this needs at least {FOLDS} images with the attribute and as many without it."
    if attribute.auc < WEAK:
        return (
            f"Weak: below an AUC of {WEAK}, edits change much else and little of the attribute. Check the labels, "
            "or add images."
        )
    if attribute.images is not None and min(attribute.images) < FEW:
        return f"Measured roughly: with fewer than {FEW} images on either side, the AUC may well be off by 0.1."
    return None


def difference(codes: Float64, has: Bools) -> Float64:
    """Return the mean of the latents [N, D] with the attribute minus the mean of those without: [D]."""
    result: Float64 = codes[has].mean(axis=0) - codes[~has].mean(axis=0)
    return result


def linear(codes: Float64, has: Bools) -> Float64:
    """Return the normal [D] of the logistic regression that separates the classes, as long as `difference`.

    Unlike `difference`, the normal does not change properties that only correlate with the attribute. Newton's method
    minimises −log p(has | w, b) + ½‖w‖² on standardised latents.
    """
    scale = codes.std(axis=0) + 1e-8
    x = np.c_[(codes - codes.mean(axis=0)) / scale, np.ones(len(codes))]
    penalty = np.diag([1.0] * codes.shape[1] + [1e-8])
    w = np.zeros(x.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = 0.5 * (1.0 + np.tanh(0.5 * (x @ w)))  # the logistic function, without overflow
        gradient = x.T @ (p - has) + penalty @ w
        hessian = (x * (p * (1.0 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(hessian, gradient)
        w -= step
        if np.abs(step).max() < _CONVERGED:
            break
    normal = w[:-1] / scale
    result: Float64 = normal * (np.linalg.norm(difference(codes, has)) / (np.linalg.norm(normal) or 1.0))
    return result


def auc(scores: Float64, has: Bools) -> float:
    """Return the probability that an image with the attribute has a higher score [N] than one without it.

    Ties count half. This is the area under the ROC curve.
    """
    without = np.sort(scores[~has])
    below, not_above = (np.searchsorted(without, scores[has], side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(without)))


def _held_out_auc(codes: Float64, has: Bools, search: Callable[[Float64, Bools], Float64]) -> float | None:
    """Return the mean AUC of FOLDS parts of the images, each by a direction that the other parts give.

    Return None if fewer than FOLDS images have the attribute, or fewer than FOLDS do not. The same images are always
    divided in the same way.
    """
    if min(has.sum(), (~has).sum()) < FOLDS:
        return None
    rng = np.random.default_rng(0)
    fold = np.empty(len(has), int)
    for part in (has, ~has):
        fold[part] = rng.permutation(part.sum()) % FOLDS
    areas = []
    for out in (fold == k for k in range(FOLDS)):
        direction = search(codes[~out], has[~out])
        areas.append(auc((codes[out] * direction).sum(axis=1), has[out]))
    return round(float(np.mean(areas)), 4)


def _opposites(has: Bools) -> dict[int, int]:
    """Return the pairs of columns of [N, A] that complement each other, as {second: first}."""
    pairs: dict[int, int] = {}
    for first, second in combinations(range(has.shape[1]), 2):
        if {first, second}.isdisjoint({*pairs, *pairs.values()}) and (has[:, first] != has[:, second]).all():
            pairs[second] = first
    return pairs
