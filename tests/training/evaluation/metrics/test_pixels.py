from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from training.evaluation.metrics.pixels import mse, psnr, ssim

RNG = np.random.default_rng(0)


def pair(side: int = 24, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    original = RNG.integers(0, 256, (4, side, side, channels))
    noisy = (original + RNG.integers(-40, 41, original.shape)).clip(0, 255)
    return noisy.astype(np.uint8), original.astype(np.uint8)


def test_mse_by_hand():
    images = np.full((2, 1, 1, 1), 255, np.uint8)
    originals = np.array([[[[0]]], [[[204]]]], np.uint8)
    assert mse(images, originals) == pytest.approx([1.0, 0.04])


def test_psnr_is_that_of_scikit_image():
    noisy, original = pair()
    theirs = [peak_signal_noise_ratio(y, x, data_range=255) for x, y in zip(noisy, original, strict=True)]
    assert psnr(noisy, original) == pytest.approx(theirs)
    assert np.isinf(psnr(original, original)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(channels):
    noisy, original = pair(channels=channels)
    theirs = [
        structural_similarity(
            x, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2
        )
        for x, y in zip(noisy, original, strict=True)
    ]
    assert ssim(noisy, original) == pytest.approx(theirs)


def test_ssim_of_images_smaller_than_its_window():
    noisy, original = pair(side=8)
    assert ssim(original, original) == pytest.approx(1.0)
    assert (ssim(noisy, original) < 0.99).all()


@pytest.mark.parametrize("metric", [mse, psnr, ssim])
def test_what_does_not_compare(metric):
    with pytest.raises(ValueError, match="do not compare"):
        metric(np.zeros((2, 4, 4, 1), np.uint8), np.zeros((3, 4, 4, 1), np.uint8))
