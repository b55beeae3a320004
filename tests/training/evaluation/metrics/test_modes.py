from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.metrics.modes import rarest_mode

RNG = np.random.default_rng(0)
CENTRES = np.eye(4) * 100.0


def drawn(*counts: int) -> np.ndarray:
    """So many rows about each of four far centres."""
    return np.concatenate([RNG.normal(size=(n, 4)) + c for n, c in zip(counts, CENTRES, strict=False)])


def test_a_rarer_mode_shows_its_ratio():
    # Four clusters of 50. The first is 20 of 185 where it is 50 of 200.
    assert rarest_mode(drawn(20, 55, 55, 55), drawn(50, 50, 50, 50)) == pytest.approx((20 / 185) / (50 / 200))


def test_a_missing_mode_is_0_and_a_faithful_model_1():
    real = drawn(50, 50, 50, 50)
    assert rarest_mode(drawn(50, 50, 50, 0), real) == 0.0
    assert rarest_mode(drawn(30, 30, 30, 30), real) == 1.0


def test_too_few_real_images_tell_nothing():
    with pytest.raises(ValueError, match="too few to tell kinds apart"):
        rarest_mode(drawn(5), drawn(60))


def test_what_does_not_compare():
    with pytest.raises(ValueError, match="do not compare"):
        rarest_mode(np.zeros((0, 4)), drawn(50))
