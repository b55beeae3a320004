"""Find directions in latent space along which an attribute of the image changes, from labelled images."""

from __future__ import annotations

from itertools import islice
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
_METHOD_TEXT: Final[dict[Method, str]] = {
    "difference": "difference of the class means",
    "linear": "normal of a logistic regression",
}
_CHUNK: Final = 256  # images that are encoded at once
_NEWTON_STEPS: Final = 25  # logistic regression converges in fewer than ten


def find(engine: Engine, labelled: Labelled, method: Method) -> dict[str, Attribute]:
    """Find the direction of every attribute.

    Args:
        engine: Encodes the images.
        labelled: The images and their attributes.
        method: "difference" is the difference of the class means, "linear" the normal of a logistic regression.

    Returns:
        The directions, by the names of the attributes.

    Raises:
        InvalidInput: An attribute has too few images with or without it, or most files are no pictures.
    """
    labelled = labelled.subsampled()
    codes, rows = _encoded(engine, labelled)
    has = labelled.has[rows]
    found = {}
    for k, name in enumerate(labelled.names):
        yes, no = int(has[:, k].sum()), int((~has[:, k]).sum())
        if min(yes, no) < MIN_IMAGES:
            problem = f"{name!r}: {yes} readable images have it and {no} do not; {MIN_IMAGES} of each are needed"
            raise InvalidInput("labels", problem)
        direction = difference(codes, has[:, k]) if method == "difference" else linear(codes, has[:, k])
        source = f"{_METHOD_TEXT[method]}, {yes:,} images with it and {no:,} without, of {labelled.data}"
        found[name] = Attribute(direction=[float(x) for x in direction.astype(np.float32)], source=source)
    return found


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
        w -= np.linalg.solve(hessian, gradient)
    normal = w[:-1] / scale
    result: Float64 = normal * (np.linalg.norm(difference(codes, has)) / (np.linalg.norm(normal) or 1.0))
    return result


def _encoded(engine: Engine, labelled: Labelled) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Return the latents [N, D] of all readable images, and the rows of these images."""
    rows: list[int] = []
    codes: list[npt.NDArray[np.float32]] = []
    images = labels.pixels(labelled, engine.manifest.image)
    while chunk := list(islice(images, _CHUNK)):
        rows += [row for row, _ in chunk]
        codes.append(engine.encode(np.stack([image for _, image in chunk])))
    count = len(labelled.has)
    if 2 * len(rows) < count:
        raise InvalidInput("data", f"{count - len(rows)} of {count} files are no readable pictures; remove them")
    return np.concatenate(codes).astype(np.float64), np.array(rows)
