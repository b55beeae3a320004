"""Precision and recall of distributions, and the F-scores of their curve (https://arxiv.org/abs/1806.00035)."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from training.evaluation.metrics.distances import Features, Float64, require_comparable

CLUSTERS: Final = 20
ANGLES: Final = 1001
RUNS: Final = 10
_EDGE: Final = 1e-6  # how near the angles come to 0 and π/2


class FScores(NamedTuple):
    """The best F_8 of the curve, which weighs recall, and the best F_1/8, which weighs precision."""

    f_8: float
    f_1_8: float


def prd_scores(features: Features, reference: Features, *, seed: int = 0) -> FScores:
    """Return F_8 and F_1/8 of the mean curve over 10 clusterings of both sets together, 20 clusters each.

    As the authors do, the larger set is thinned to the size of the smaller one.

    Args:
        features: Features of generated images, float [N, D].
        reference: Features of real images, float [M, D].
        seed: The seed of thinning and clustering.

    Raises:
        ValueError: A set has fewer rows than there are clusters, or the rows differ in length.
    """
    require_comparable(features, reference, rows=CLUSTERS)
    rng = np.random.default_rng(seed)
    size = min(len(features), len(reference))
    rows, others = (
        part if len(part) == size else part[rng.choice(len(part), size, replace=False)]
        for part in (features, reference)
    )
    curves = [prd_curve(*_histograms(rows, others, run)) for run in rng.integers(2**31, size=RUNS)]
    precision, recall = np.mean(curves, axis=0)
    return FScores(_best_f(precision, recall, 8.0), _best_f(precision, recall, 1.0 / 8.0))


def prd_curve(shares: Float64, reference: Float64) -> Float64:  # [2, 1001]
    """Return precision α(λ) = Σᵢ min(λ pᵢ, qᵢ) and recall α(λ)/λ with λ = tan θ (equation 6).

    θ takes 1001 values between 0 and π/2.

    Args:
        shares: q, the histogram of the generated images; sums to 1.
        reference: p, the histogram of the real images; sums to 1.
    """
    slopes = np.tan(np.linspace(_EDGE, np.pi / 2 - _EDGE, ANGLES))[:, None]
    precision = np.minimum(slopes * reference, shares).sum(axis=1)
    return np.stack([precision, precision / slopes[:, 0]]).clip(0.0, 1.0)


def _best_f(precision: Float64, recall: Float64, beta: float) -> float:
    """Return the largest F_β = (1 + β²) P R / (β² P + R) along the curve."""
    weighted = beta**2 * precision + recall
    return float(((1.0 + beta**2) * precision * recall / (weighted + 1e-10)).max())


def _histograms(rows: Features, reference: Features, seed: int) -> tuple[Float64, Float64]:
    """Cluster both sets together, and return the share of each cluster in each set."""
    union = np.concatenate([rows, reference]).astype(np.float64)
    clusters = MiniBatchKMeans(CLUSTERS, n_init=10, random_state=int(seed)).fit(union).labels_
    counts = [np.bincount(part, minlength=CLUSTERS) for part in (clusters[: len(rows)], clusters[len(rows) :])]
    return counts[0] / len(rows), counts[1] / len(reference)
