from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from training.evaluation.metrics import frechet_distance

RNG = np.random.default_rng(0)


def test_equal_features_are_at_no_distance():
    features = RNG.normal(size=(500, 6))
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-9)


def test_a_shift_costs_its_square():
    features = RNG.normal(size=(500, 6))
    shift = np.arange(6.0)
    assert frechet_distance(features, features + shift) == pytest.approx(shift @ shift)


def test_scales_of_independent_dimensions_have_a_closed_form():
    base = RNG.normal(size=(20000, 3))
    base = np.linalg.solve(np.linalg.cholesky(np.cov(base, rowvar=False)), (base - base.mean(0)).T).T  # exactly white
    scales = np.array([0.5, 2.0, 3.0])
    assert frechet_distance(base, base * scales) == pytest.approx(((scales - 1) ** 2).sum())


def test_it_is_the_textbook_formula():
    one, other = RNG.normal(size=(300, 5)) @ RNG.normal(size=(5, 5)), RNG.normal(size=(400, 5)) + 1
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    mean = one.mean(0) - other.mean(0)
    assert frechet_distance(one, other) == pytest.approx(mean @ mean + np.trace(sum(covariances) - 2 * root))


def test_what_does_not_compare():
    with pytest.raises(ValueError, match="do not compare"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="do not compare"):
        frechet_distance(np.zeros((5, 2)), np.zeros((5, 3)))
