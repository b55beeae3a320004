"""Directions in latent space along which an attribute changes, from labelled images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from rae_serve import labels
from rae_serve.arrays import Pixels
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput
from rae_serve.labels import Labelled
from rae_serve.manifest import Attribute

Method = Literal["difference", "linear"]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MIN_IMAGES: Final = 2  # of either class
_CHUNK: Final = 256
_NEWTON_STEPS: Final = 25  # logistic regression converges in fewer than ten


def find(engine: Engine, labelled: Labelled, method: Method) -> dict[str, Attribute]:
    """A direction for every attribute of labelled images. Raises InvalidInput where one has too few of a class."""
    labelled = labelled.thinned()
    codes, rows = _encoded(engine, labelled)
    has = labelled.has[rows]
    found = {}
    for k, name in enumerate(labelled.names):
        yes, no = int(has[:, k].sum()), int((~has[:, k]).sum())
        if min(yes, no) < MIN_IMAGES:
            problem = f"{name!r}: {yes} readable images have it and {no} have not; {MIN_IMAGES} of each are needed"
            raise InvalidInput("labels", problem)
        direction = difference(codes, has[:, k]) if method == "difference" else linear(codes, has[:, k])
        source = f"{_WORDS[method]}, {yes:,} images with it and {no:,} without, of {labelled.data}"
        found[name] = Attribute(direction=[float(x) for x in direction.astype(np.float32)], source=source)
    return found


_WORDS: Final[dict[Method, str]] = {
    "difference": "difference of the class means",
    "linear": "normal of a logistic regression",
}


def difference(codes: Float64, has: Bools) -> Float64:
    """The mean of the codes [N, D] that have an attribute less that of those that have not: [D]."""
    result: Float64 = codes[has].mean(axis=0) - codes[~has].mean(axis=0)
    return result


def linear(codes: Float64, has: Bools) -> Float64:
    """The normal of the logistic regression that tells the classes apart, as long as `difference`: [D].

    Unlike the difference it leaves alone what merely goes along with the attribute. The codes are
    standardised; −log p(labels | w, b) + ½‖w‖² is minimised by Newton's method.
    """
    scale = codes.std(axis=0) + 1e-8
    x = np.c_[(codes - codes.mean(axis=0)) / scale, np.ones(len(codes))]
    penalty = np.diag([1.0] * codes.shape[1] + [1e-8])
    w = np.zeros(x.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = 0.5 * (1.0 + np.tanh(0.5 * (x @ w)))  # the logistic function, without overflow
        gradient = x.T @ (p - has) + penalty @ w
        hessian = (x * (p * (1.0 - p))[:, None]).T @ x + penalty
        w -= np.linalg.solve(hessian, gradient)
    normal = w[:-1] / scale
    result: Float64 = normal * (np.linalg.norm(difference(codes, has)) / (np.linalg.norm(normal) or 1.0))
    return result


def _encoded(engine: Engine, labelled: Labelled) -> tuple[Float64, npt.NDArray[np.int64]]:
    """The codes [N, D] of the images that can be read, and their rows."""
    rows: list[int] = []
    codes: list[npt.NDArray[np.float32]] = []
    for chunk in _chunks(labels.pixels(labelled, engine.manifest.image)):
        rows += [row for row, _ in chunk]
        codes.append(engine.encode(np.stack([image for _, image in chunk])))
    if 2 * len(rows) < len(labelled.has):
        raise InvalidInput("data", f"{len(labelled.has) - len(rows)} of {len(labelled.has)} files are no images")
    return np.concatenate(codes).astype(np.float64), np.array(rows)


def _chunks(items: Iterable[tuple[int, Pixels]]) -> Iterable[list[tuple[int, Pixels]]]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
