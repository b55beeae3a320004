"""Metrics of codes: float [N, m], one row an image."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from training.evaluation.metrics.distances import Features

ACTIVE: Final = 0.01  # of the largest variance


def active_dimensions(codes: Features) -> npt.NDArray[np.intp]:
    """The dimensions whose codes vary by at least 1% of the variance of the one that varies most.

    As the active units of 1509.00519, whose threshold of 0.01 presumes a prior of variance 1; a deterministic
    auto-encoder's codes have any scale.
    """
    variance = codes.var(axis=0, dtype=np.float64)
    return np.flatnonzero(variance >= ACTIVE * variance.max()) if variance.any() else np.array([], np.intp)


def normalised_absolute_correlation(codes: Features) -> float:
    """NAC: 1/(m(m−1)) Σ_{i≠j} |C_ij| / √(C_ii C_jj), C the covariance of the m dimensions (1912.04564).

    0 for uncorrelated dimensions, 1 where each is a multiple of the other; independent ones give about 0.8/√N.
    Of one dimension it is 0. Raises ValueError where a dimension does not vary: leave inactive ones out.
    """
    m = codes.shape[1]
    if m < 2:
        return 0.0
    covariance = np.cov(codes.astype(np.float64), rowvar=False)
    deviation = np.sqrt(covariance.diagonal())
    if not deviation.all():
        raise ValueError(f"dimension {int(deviation.argmin())} of the codes does not vary")
    correlation = np.abs(covariance / np.outer(deviation, deviation))
    return float((correlation.sum() - np.trace(correlation)) / (m * (m - 1)))
