"""Metrics of two sets of images: features in, a number out. Features are float [N, D], one row per image."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import linalg
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors

Features = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]

_CHUNK_MIB: Final = 64  # the most of a distance matrix that is in memory at once
_ROUNDING: Final = 1e-5  # more than the relative error of float32 features, far less than images differ by


class KernelDistance(NamedTuple):
    """The mean and the standard deviation of the estimate over the random subsets."""

    mean: float
    std: float


class PrecisionRecall(NamedTuple):
    """Precision: how much of the generated set is like real images. Recall: how much of the real set is generated."""

    precision: float
    recall: float


def frechet_distance(features: Features, reference: Features) -> float:
    """Return ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), the distance of two sets of features taken as Gaussians.

    See equation 6 of https://arxiv.org/abs/1706.08500. The distance is the FID if the features are the pool3 features
    of Inception (2015); on another network it has the name of that network. Covariances divide by N − 1.

    Raises:
        ValueError: A set has fewer than two rows, or the rows differ in length.
    """
    require_comparable(features, reference, rows=2)
    one, other = features.astype(np.float64), reference.astype(np.float64)
    difference = one.mean(axis=0) - other.mean(axis=0)
    covariance, other_covariance = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    # tr (Σ₁Σ₂)^½ is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    values, vectors = linalg.eigh(np.atleast_2d(covariance))
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    product = linalg.eigvalsh(root @ np.atleast_2d(other_covariance) @ root)
    trace = np.trace(np.atleast_2d(covariance + other_covariance)) - 2.0 * np.sqrt(product.clip(min=0.0)).sum()
    return float(difference @ difference + trace)


def spread(reference: Features) -> float:
    """Return tr Σ: the Fréchet distance of a model that only makes one image, the average of the reference.

    The spread of equal images is 0, even where float32 arithmetic makes their features differ slightly.
    """
    trace = float(reference.var(axis=0, ddof=1, dtype=np.float64).sum())
    return trace if trace > _ROUNDING**2 * float(np.square(reference, dtype=np.float64).sum(axis=1).mean()) else 0.0


def kernel_distance(
    features: Features, reference: Features, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> KernelDistance:
    """Return the unbiased MMD² under k(x, y) = (xᵀy / D + 1)³, averaged over random subsets.

    See section 4 of https://arxiv.org/abs/1801.01401. The distance is the KID if the features are the pool3 features
    of Inception (2015). The subsets are drawn as torch-fidelity draws them, so the same seed gives the same figures.

    Args:
        features: float [N, D].
        reference: float [M, D].
        subsets: The number of random subsets.
        subset_size: Rows per subset, at most as many as the smaller set has.
        seed: The seed of the subsets; the default is that of torch-fidelity.

    Raises:
        ValueError: A set has fewer than two rows, or the rows differ in length.
    """
    require_comparable(features, reference, rows=2)
    size = min(subset_size, len(features), len(reference))
    rng = np.random.RandomState(seed)
    estimates = [
        _mmd2(
            features[rng.choice(len(features), size, replace=False)],
            reference[rng.choice(len(reference), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(estimates)), float(np.std(estimates)))


def precision_recall(features: Features, reference: Features, *, k: int = 3) -> PrecisionRecall:
    """Return improved precision and recall, equations 1 to 3 of https://arxiv.org/abs/1904.06991.

    Every row has a ball whose radius is the distance to its k-th nearest neighbour in the same set. Precision is the
    share of features in the ball of some reference row; recall is the share of the reference in the ball of some
    feature row. A point on the sphere counts as in the ball.

    Args:
        features: Features of generated images, float [N, D].
        reference: Features of real images, float [M, D].
        k: Which neighbour gives the radius.

    Raises:
        ValueError: A set has at most k rows, or the rows differ in length.
    """
    require_comparable(features, reference, rows=k + 1)
    features, reference = shifted(features, reference)
    return PrecisionRecall(_share_in_balls(features, reference, k), _share_in_balls(reference, features, k))


def shifted(rows: Features, others: Features) -> tuple[Float64, Float64]:
    """Move both sets, in float64, so that the mean of `others` is the origin.

    scikit-learn computes ‖x − y‖² as ‖x‖² + ‖y‖² − 2xᵀy, which loses digits far from the origin.
    """
    centre = others.mean(axis=0, dtype=np.float64)
    return rows - centre, others - centre


def require_comparable(features: Features, reference: Features, rows: int) -> None:
    """Raise ValueError if a set has fewer than `rows` rows or the rows differ in length."""
    if min(len(features), len(reference)) < rows or features.shape[1:] != reference.shape[1:]:
        raise ValueError(f"features {features.shape} and {reference.shape} do not compare")


def _share_in_balls(rows: Float64, centres: Float64, k: int) -> float:
    """Return the share of rows that lie in the ball of some centre."""
    distances, _ = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(centres).kneighbors()
    radii = distances[:, -1]
    inside = pairwise_distances_chunked(
        rows,
        centres,
        reduce_func=lambda part, _: (part <= radii).any(axis=1),
        working_memory=_CHUNK_MIB,
    )
    return float(np.concatenate(list(inside)).mean())


def _mmd2(x: Features, y: Features) -> float:
    n = len(x)
    one, other, between = _cubic(x, x), _cubic(y, y), _cubic(x, y)
    within = one.sum() - np.trace(one) + other.sum() - np.trace(other)
    return float(within / (n * (n - 1)) - 2.0 * between.mean())


def _cubic(x: Features, y: Features) -> Float64:
    kernel = (x.astype(np.float64) @ y.T.astype(np.float64)) / x.shape[1] + 1.0
    return kernel * kernel * kernel
