"""Does a model repeat its training images? Distances to the nearest of them, beside those of held-out images.

A generated image is always near some training image, the more so where it is smooth. What says something is
whether it is nearer than new images of the same kind are.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from training.evaluation.metrics.distances import Features, Float64

NEAR: Final = 0.01  # the share of held-out images that "as near as a copy" is calibrated by
_CHUNK: Final = 1000


class Nearest(NamedTuple):
    """For each row, which row of the others is nearest, int [N], and how far, float64 [N]."""

    index: npt.NDArray[np.intp]
    distance: Float64


class Memorisation(NamedTuple):
    """Generated against held-out images, by their distance to the nearest training image.

    `closer` is the probability that a generated image is nearer to one than a held-out image is: ½ where the
    model generates as new images as reality does, 1 where it copies; `z` is by how many standard errors it
    exceeds ½. `copies` is the share of generated images that are nearer than all but the nearest 1% of the
    held-out ones: 0.01 where nothing is copied, however smooth or rough all images are.
    """

    closer: float
    z: float
    copies: float


def nearest(rows: Features, others: Features) -> Nearest:
    """The Euclidean nearest of `others` to each of `rows`.

    Found in float32 about a common centre, and measured in float64: among rows that are equally near to seven
    digits, any may be named. Raises ValueError where `others` is empty or D differs.
    """
    if not len(others) or rows.shape[1:] != others.shape[1:]:
        raise ValueError(f"features {rows.shape} and {others.shape} do not compare")
    centre = others.mean(axis=0, dtype=np.float64).astype(np.float32)
    columns = others.astype(np.float32) - centre
    norms = np.square(columns).sum(axis=1)
    found = []
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK].astype(np.float32) - centre
        found.append((norms - 2.0 * part @ columns.T).argmin(axis=1))
    index = np.concatenate(found)
    return Nearest(index, np.linalg.norm(rows.astype(np.float64) - others[index], axis=1))


def memorisation(generated: Float64, held_out: Float64) -> Memorisation:
    """Compare distances to the nearest training image, [N] and [M] (Mann–Whitney, as in 2004.05675, sec. 3).

    Raises ValueError where one of them is empty.
    """
    if not len(generated) or not len(held_out):
        raise ValueError(f"{len(generated)} and {len(held_out)} distances do not compare")
    n, m = len(generated), len(held_out)
    # U counts the pairs in which the held-out image is farther; ties count half.
    u = float(stats.mannwhitneyu(held_out, generated).statistic)
    error = np.sqrt(n * m * (n + m + 1) / 12.0)
    threshold = np.quantile(held_out, NEAR)
    return Memorisation(u / (n * m), float((u - n * m / 2.0) / error), float((generated < threshold).mean()))
