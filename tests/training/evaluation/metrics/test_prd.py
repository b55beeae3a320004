from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.metrics.prd import ANGLES, prd_curve, prd_scores

RNG = np.random.default_rng(0)


def features(rows: int, shift: float = 0.0) -> np.ndarray:
    return RNG.normal(size=(rows, 6)) + shift


def test_equal_histograms_reach_full_precision_at_full_recall():
    shares = np.array([0.2, 0.3, 0.5])
    precision, recall = prd_curve(shares, shares)
    assert (precision.shape, recall.shape) == ((ANGLES,), (ANGLES,))
    best = np.argmax(precision + recall)
    assert (precision[best], recall[best]) == (pytest.approx(1.0), pytest.approx(1.0))


def test_a_model_of_one_of_two_modes_by_hand():
    # p = (½, ½), q = (1, 0): α(λ) = min(λ/2, 1), so precision may be 1 (λ ≥ 2) and recall at most ½ (λ ≤ 2).
    precision, recall = prd_curve(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    slopes = np.tan(np.linspace(1e-6, np.pi / 2 - 1e-6, ANGLES))
    assert precision == pytest.approx(np.minimum(slopes / 2, 1.0))
    assert recall.max() == pytest.approx(0.5)


def test_disjoint_histograms_share_nothing():
    assert prd_curve(np.array([1.0, 0.0]), np.array([0.0, 1.0])).max() == 0.0


def test_scores_of_one_distribution_are_near_1():
    scores = prd_scores(features(1500), features(1500))
    assert min(scores) > 0.95


def test_f_8_sees_a_missing_mode_and_f_1_8_an_invented_one():
    one, both = features(800), np.concatenate([features(400), features(400, shift=20.0)])
    missing, invented = prd_scores(one, both), prd_scores(both, one)
    # By the case above: precision 1, recall ½, so F_8 = 65 · ½ / (64 + ½) and F_1/8 the same of the other.
    assert missing.f_8 == pytest.approx(65 * 0.5 / 64.5, abs=0.03)
    assert missing.f_1_8 > 0.9
    assert invented.f_1_8 == pytest.approx(65 * 0.5 / 64.5, abs=0.03)
    assert invented.f_8 > 0.9


def test_a_seed_is_a_seed():
    one, other = features(300), features(400, shift=1.0)
    assert prd_scores(one, other, seed=3) == prd_scores(one, other, seed=3)


def test_what_does_not_compare():
    with pytest.raises(ValueError, match="do not compare"):
        prd_scores(features(19), features(100))
