"""Does a model repeat its training images? Distances to the nearest training image answer it.

Every generated image is near some training image, and smooth images are nearer than others. So the distances of
generated images only mean something beside the distances of held-out images.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.metrics import pairwise_distances_argmin

from training.evaluation.metrics.distances import Features, Float64, require_comparable, shifted

NEAR: Final = 0.01  # the share of held-out images that count as near as a copy


class Nearest(NamedTuple):
    """The nearest neighbour of each of N rows: its row, int [N], and its distance, float64 [N]."""

    row: npt.NDArray[np.intp]
    distance: Float64


class Memorisation(NamedTuple):
    """Generated images compared with held-out images by the distance to the nearest training image.

    Attributes:
        closer: The probability that a generated image is nearer to a training image than a held-out image is. It is
            ½ if generated images are as new as held-out images, and 1 if the model copies.
        z: By how many standard errors `closer` exceeds ½.
        copies: The share of generated images that are nearer than 99% of the held-out images. It is 0.01 if nothing
            is copied, whether the images are smooth or rough. It is NaN if 1% of the held-out images are themselves
            training images, because no image can be nearer than they are.
    """

    closer: float
    z: float
    copies: float


def nearest(rows: Features, others: Features) -> Nearest:
    """Find the row of `others` that is nearest to each row of `rows` by Euclidean distance.

    Raises:
        ValueError: A set is empty, or the rows differ in length.
    """
    require_comparable(rows, others, rows=1)
    row = pairwise_distances_argmin(*shifted(rows, others))
    # Measured anew, row by row: scikit-learn's ‖x‖² + ‖y‖² − 2xᵀy is not exactly 0 for a copy.
    return Nearest(row, np.linalg.norm(rows.astype(np.float64) - others[row], axis=1))


def memorisation(generated: Float64, held_out: Float64) -> Memorisation:
    """Compare two sets of distances to the nearest training image (Mann–Whitney U test).

    See section 3 of https://arxiv.org/abs/2004.05675.

    Raises:
        ValueError: One of the sets is empty.
    """
    if not len(generated) or not len(held_out):
        raise ValueError(f"{len(generated)} and {len(held_out)} distances do not compare")
    n, m = len(generated), len(held_out)
    # U counts the pairs in which the held-out image is farther; ties count half.
    u = float(stats.mannwhitneyu(held_out, generated).statistic)
    error = np.sqrt(n * m * (n + m + 1) / 12.0)
    threshold = np.quantile(held_out, NEAR)
    copies = float((generated < threshold).mean()) if threshold > 0.0 else math.nan
    return Memorisation(u / (n * m), float((u - n * m / 2.0) / error), copies)
