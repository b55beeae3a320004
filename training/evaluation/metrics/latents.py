"""Metrics of latents: float [N, m], one row per image."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from training.evaluation.metrics.distances import Features

ACTIVE: Final = 0.01  # a share of the largest variance


def active_dimensions(latents: Features) -> npt.NDArray[np.intp]:
    """Return the dimensions whose variance is at least 1% of the largest variance of any dimension.

    The active units of https://arxiv.org/abs/1509.00519 have a fixed threshold of 0.01, because their prior has
    variance 1. Latents of a deterministic auto-encoder have any scale, so this threshold is relative.
    """
    variance = latents.var(axis=0, dtype=np.float64)
    return np.flatnonzero(variance >= ACTIVE * variance.max()) if variance.any() else np.array([], np.intp)


def normalised_absolute_correlation(latents: Features) -> float:
    """Return the NAC, 1/(m(m−1)) Σ_{i≠j} |C_ij| / √(C_ii C_jj), where C is the covariance of the m dimensions.

    See https://arxiv.org/abs/1912.04564. The NAC is 0 for uncorrelated dimensions and 1 if each dimension is a
    multiple of the others; N rows of independent dimensions give about 0.8/√N. With one dimension the NAC is 0.

    Raises:
        ValueError: A dimension is constant. Leave inactive dimensions out.
    """
    m = latents.shape[1]
    if m < 2:
        return 0.0
    covariance = np.cov(latents.astype(np.float64), rowvar=False)
    deviation = np.sqrt(covariance.diagonal())
    if not deviation.all():
        raise ValueError(f"dimension {int(deviation.argmin())} of the latents does not vary")
    correlation = np.abs(covariance / np.outer(deviation, deviation))
    return float((correlation.sum() - np.trace(correlation)) / (m * (m - 1)))
