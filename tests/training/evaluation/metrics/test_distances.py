from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy import linalg
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full

from training.evaluation.metrics.distances import (
    frechet_distance,
    kernel_distance,
    precision_recall,
    spread,
)

RNG = np.random.default_rng(0)


def features(rows: int, shift: float = 0.0) -> np.ndarray:
    return RNG.normal(size=(rows, 6)) + shift


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


def test_it_is_that_of_torch_fidelity():
    one, other = features(500, shift=0.5), features(400) * 2
    statistics = [fid_features_to_statistics(torch.from_numpy(rows)) for rows in (one, other)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)
    assert frechet_distance(one, other) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_what_does_not_compare():
    with pytest.raises(ValueError, match="do not compare"):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="do not compare"):
        frechet_distance(np.zeros((5, 2)), np.zeros((5, 3)))


def test_the_spread_is_the_distance_of_a_model_of_one_average_image():
    reference = RNG.normal(size=(400, 5)) @ RNG.normal(size=(5, 5)) + 3
    average = np.tile(reference.mean(axis=0), (400, 1))
    assert spread(reference) == pytest.approx(frechet_distance(average, reference))


@pytest.mark.parametrize("rows", [(700, 900), (60, 40)])
def test_the_kernel_distance_is_that_of_torch_fidelity(rows):
    one, other = features(rows[0], shift=0.3), features(rows[1])
    size = min(50, *rows)
    options = {"kid_subsets": 20, "kid_subset_size": size, "rng_seed": 2020, "kid_kernel_poly_degree": 3}
    options |= {"kid_kernel": "poly", "kid_kernel_poly_coef0": 1, "kid_kernel_poly_gamma": None, "verbose": False}
    theirs = kid_features_to_metric(torch.from_numpy(one), torch.from_numpy(other), **options)
    ours = kernel_distance(one, other, subsets=20, subset_size=50)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)


def test_the_kernel_distance_of_a_case_by_hand():
    # One dimension, x = {0, 1}, y = {1, 2}, all of them in the one subset: k(x, y) = (xy + 1)³.
    within = (1**3 + 1**3) / 2 + (3**3 + 3**3) / 2
    between = (1 + 1 + 2**3 + 3**3) / 4
    result = kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]]), subsets=1)
    assert result.mean == pytest.approx(within - 2 * between)


def test_sets_of_one_distribution_are_at_no_kernel_distance_on_average():
    estimate = kernel_distance(features(2000), features(2000), subsets=50, subset_size=500)
    assert abs(estimate.mean) < 3 * estimate.std


@pytest.mark.parametrize("rows", [(300, 300), (1300, 400)])  # the second takes more than one piece
def test_precision_and_recall_are_those_of_prdc_and_torch_fidelity(rows):
    generated, real = features(rows[0], shift=0.8) * 0.9, features(rows[1])
    ours = precision_recall(generated, real, k=3)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = compute_prdc(real, generated, nearest_k=3)
    assert ours == pytest.approx((theirs["precision"], theirs["recall"]))
    tensors = torch.from_numpy(generated), torch.from_numpy(real)
    assert ours == pytest.approx(calculate_precision_recall_full(*tensors, neighborhood=3))
    assert 0.1 < ours.precision < 0.95


def test_precision_and_recall_by_hand():
    real = np.arange(0.0, 10.0)[:, None]  # unit steps: every ball of the first neighbour has the radius 1
    generated = np.array([[0.0], [0.5], [1.0], [50.0]])
    # Three of four are within a real ball. The generated balls reach ½, ½, ½ and 49 from their centres: all.
    assert precision_recall(generated, real, k=1) == (0.75, 1.0)


def test_a_missing_mode_costs_recall_and_an_invented_one_precision():
    one, two = features(300), features(300, shift=30.0)
    both = np.concatenate([one, two])
    missing = precision_recall(features(300), both)
    invented = precision_recall(both, features(300))
    assert missing.precision > 0.8 > 0.55 > missing.recall
    assert invented.recall > 0.8 > 0.55 > invented.precision


@pytest.mark.parametrize("metric", [kernel_distance, precision_recall])
def test_the_others_refuse_what_does_not_compare(metric):
    with pytest.raises(ValueError, match="do not compare"):
        metric(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="do not compare"):
        metric(np.zeros((5, 2)), np.zeros((5, 3)))


def test_precision_and_recall_survive_a_far_centre():
    generated, real = features(200, shift=0.8) * 0.9, features(200)
    assert precision_recall(generated + 1e7, real + 1e7) == precision_recall(generated, real)
