"""Metrics: features in, a number out. Features are float [N, D], one row an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

Features = npt.NDArray[np.floating[Any]]


def frechet_distance(features: Features, reference: Features) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) of two sets of features as Gaussians (1706.08500, eq. 6).

    FID where the features are Inception-2015's pool3; on any other network's it bears that network's name.
    Covariances divide by N − 1. Raises ValueError for fewer than two rows or differing D.
    """
    if min(len(features), len(reference)) < 2 or features.shape[1:] != reference.shape[1:]:
        raise ValueError(f"features {features.shape} and {reference.shape} do not compare")
    one, other = features.astype(np.float64), reference.astype(np.float64)
    difference = one.mean(axis=0) - other.mean(axis=0)
    covariance, other_covariance = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    # tr (Σ₁Σ₂)^½ is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    values, vectors = linalg.eigh(np.atleast_2d(covariance))
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    product = linalg.eigvalsh(root @ np.atleast_2d(other_covariance) @ root)
    trace = np.trace(np.atleast_2d(covariance + other_covariance)) - 2.0 * np.sqrt(product.clip(min=0.0)).sum()
    return float(difference @ difference + trace)
