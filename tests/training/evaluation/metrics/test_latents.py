from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.metrics.latents import active_dimensions, normalised_absolute_correlation

RNG = np.random.default_rng(0)


def test_active_dimensions_are_counted_at_any_scale():
    codes = RNG.normal(size=(2000, 4)) * np.array([3.0, 1.0, 0.01, 0.0])
    assert active_dimensions(codes).tolist() == [0, 1]
    assert active_dimensions(100 * codes).tolist() == [0, 1]


def test_codes_that_never_vary_are_not_active():
    assert len(active_dimensions(np.ones((5, 3)))) == 0


def test_the_correlation_of_two_dimensions_is_the_textbook_one():
    codes = RNG.normal(size=(500, 2)) @ np.array([[1.0, -0.6], [0.0, 2.0]])
    expected = abs(np.corrcoef(codes, rowvar=False)[0, 1])
    assert normalised_absolute_correlation(codes) == pytest.approx(expected)


def test_it_is_the_mean_over_all_pairs():
    base = RNG.normal(size=(100, 1))
    base -= base.mean()
    independent = RNG.normal(size=(100, 1))
    independent -= independent.mean()
    independent -= base * (base * independent).sum() / (base**2).sum()  # exactly uncorrelated
    codes = np.concatenate([base, -2 * base, independent], axis=1)
    assert normalised_absolute_correlation(codes) == pytest.approx(2 / 6)


def test_independent_dimensions_give_what_chance_gives():
    n = 10_000
    assert normalised_absolute_correlation(RNG.normal(size=(n, 16))) == pytest.approx(0.8 / n**0.5, rel=0.15)


def test_a_dimension_that_does_not_vary_is_named():
    with pytest.raises(ValueError, match="dimension 1 "):
        normalised_absolute_correlation(np.array([[0.0, 1.0], [1.0, 1.0]]))
    assert normalised_absolute_correlation(np.ones((3, 1))) == 0.0
