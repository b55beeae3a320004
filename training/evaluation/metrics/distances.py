"""Metrics of two sets of images: features in, a number out. Features are float [N, D], one row an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import linalg

Features = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]

_CHUNK: Final = 1000  # rows of a distance matrix that are held at once


class KernelDistance(NamedTuple):
    """The mean and the deviation of the estimate over the subsets."""

    mean: float
    std: float


class PrecisionRecall(NamedTuple):
    """How much of the generated is like the real, and how much of the real the generated covers."""

    precision: float
    recall: float


def frechet_distance(features: Features, reference: Features) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) of two sets of features as Gaussians (1706.08500, eq. 6).

    FID where the features are Inception-2015's pool3; on any other network's it bears that network's name.
    Covariances divide by N − 1. Raises ValueError for fewer than two rows or differing D.
    """
    _require_comparable(features, reference, rows=2)
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
    """tr Σ: the Fréchet distance from the reference of a model that makes one average image only."""
    return float(reference.var(axis=0, ddof=1, dtype=np.float64).sum())


def kernel_distance(
    features: Features, reference: Features, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> KernelDistance:
    """Unbiased MMD² under k(x, y) = (xᵀy / D + 1)³, over random subsets (1801.01401, sec. 4).

    KID where the features are Inception-2015's pool3. Subsets are no larger than the smaller set. They are
    drawn as torch-fidelity draws them, so that with its seed, 2020, the figures are the same.
    Raises ValueError for fewer than two rows or differing D.
    """
    _require_comparable(features, reference, rows=2)
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
    """Improved precision and recall (1904.06991, eq. 1–3).

    Precision is the share of features within the ball of some reference row, whose radius is the distance to
    its k-th nearest among the reference; recall is the same with the two changed over. A point on the sphere
    is within. Raises ValueError for no more than k rows or differing D.
    """
    _require_comparable(features, reference, rows=k + 1)
    return PrecisionRecall(
        float(_within(features, reference, _radii(reference, k)).mean()),
        float(_within(reference, features, _radii(features, k)).mean()),
    )


def squared_distances(one: Features, other: Features) -> Iterator[Float64]:
    """‖x − y‖² of all pairs, in pieces [≤1000, M] that make up [N, M] in order.

    In float64 and about a common centre: so the cancellation in ‖x‖² + ‖y‖² − 2xᵀy costs nothing that counts.
    """
    centre = other.mean(axis=0, dtype=np.float64)
    columns = other.astype(np.float64) - centre
    norms = np.square(columns).sum(axis=1)
    for start in range(0, len(one), _CHUNK):
        rows = one[start : start + _CHUNK].astype(np.float64) - centre
        squared = np.square(rows).sum(axis=1)[:, None] + norms - 2.0 * rows @ columns.T
        yield squared.clip(min=0.0)


def _radii(rows: Features, k: int) -> Float64:
    """The squared distance of each row to its k-th nearest other, [N]."""
    # The nearest is the row itself, hence the k-th from 0.
    return np.concatenate([np.partition(part, k, axis=1)[:, k] for part in squared_distances(rows, rows)])


def _within(rows: Features, centres: Features, radii: Float64) -> npt.NDArray[np.bool_]:
    return np.concatenate([(part <= radii).any(axis=1) for part in squared_distances(rows, centres)])


def _mmd2(x: Features, y: Features) -> float:
    n = len(x)
    one, other, between = _cubic(x, x), _cubic(y, y), _cubic(x, y)
    within = one.sum() - np.trace(one) + other.sum() - np.trace(other)
    return float(within / (n * (n - 1)) - 2.0 * between.mean())


def _cubic(x: Features, y: Features) -> Float64:
    kernel = (x.astype(np.float64) @ y.T.astype(np.float64)) / x.shape[1] + 1.0
    return kernel * kernel * kernel


def _require_comparable(features: Features, reference: Features, rows: int) -> None:
    if min(len(features), len(reference)) < rows or features.shape[1:] != reference.shape[1:]:
        raise ValueError(f"features {features.shape} and {reference.shape} do not compare")
