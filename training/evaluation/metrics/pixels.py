"""Metrics of pairs of images, uint8 [N, H, W, C] each: one number per pair, float64 [N]."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter

from rae_serve.arrays import Pixels
from training.evaluation.metrics.distances import Float64

_SIGMA: Final = 1.5
_RADIUS: Final = 5  # of the window of 11 × 11


def mse(images: Pixels, originals: Pixels) -> Float64:
    """Return the mean of (x − y)² over the pixels, with pixels in [0, 1]."""
    difference = (_paired(images, originals) - originals) / 255.0
    return np.square(difference).mean(axis=(1, 2, 3))


def psnr(images: Pixels, originals: Pixels) -> Float64:
    """Return 10 log₁₀(1 / mse) in decibels. An exact copy has an infinite value."""
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(mse(images, originals))


def ssim(images: Pixels, originals: Pixels) -> Float64:
    """Return the structural similarity (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861).

    The window is a Gaussian of 11 × 11 pixels with σ = 1.5, and K = (0.01, 0.03). The result is the mean over the
    channels and over all windows that lie within the image. An image smaller than the window is mirrored at its
    edges, and all windows count.
    """
    x, y = _paired(images, originals), originals.astype(np.float64)
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    similarity = (2.0 * mean_x * mean_y + c1) * (2.0 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    if min(x.shape[1:3]) > 2 * _RADIUS:
        similarity = similarity[:, _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    return similarity.mean(axis=(1, 2, 3))


def _blur(images: Float64) -> Float64:
    return gaussian_filter(images, sigma=(0.0, _SIGMA, _SIGMA, 0.0), radius=(0, _RADIUS, _RADIUS, 0))


def _paired(images: Pixels, originals: Pixels) -> Float64:
    """Return the images as float64. Raise ValueError if the shapes differ."""
    if images.shape != originals.shape or images.ndim != 4:
        raise ValueError(f"images {images.shape} and originals {originals.shape} do not compare")
    return images.astype(np.float64)
