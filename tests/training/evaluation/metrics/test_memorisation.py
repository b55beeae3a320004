from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from training.evaluation.metrics.memorisation import memorisation, nearest

RNG = np.random.default_rng(0)


def test_the_nearest_are_those_of_a_tree_search():
    rows, others = RNG.normal(size=(1200, 5)) + 100.0, RNG.normal(size=(300, 5)) + 100.0
    distance, index = NearestNeighbors(n_neighbors=1, algorithm="kd_tree").fit(others).kneighbors(rows)
    ours = nearest(rows, others)
    assert (ours.row == index[:, 0]).mean() > 0.999
    assert ours.distance == pytest.approx(distance[:, 0], rel=1e-4)


def test_an_exact_copy_is_at_distance_0():
    others = RNG.normal(size=(50, 3)).astype(np.float32)
    assert (nearest(others[[7, 9]], others).distance == 0.0).all()


def test_the_nearest_are_found_at_a_far_centre():
    rows, others = RNG.normal(size=(100, 3)), RNG.normal(size=(1000, 3))
    assert (nearest(rows + 1e7, others + 1e7).row == nearest(rows, others).row).all()


def test_closer_is_counted_over_pairs():
    # Of the 3 × 2 pairs, the held-out image is farther in 4, and 1 is a tie.
    result = memorisation(np.array([1.0, 2.0, 5.0]), np.array([2.0, 6.0]))
    assert result.closer == pytest.approx(4.5 / 6)


def test_new_images_are_no_closer_than_held_out_ones():
    train, held_out, generated = (RNG.normal(size=(rows, 4)) for rows in (2000, 1000, 1000))
    result = memorisation(nearest(generated, train).distance, nearest(held_out, train).distance)
    assert result.closer == pytest.approx(0.5, abs=0.05)
    assert abs(result.z) < 4
    assert result.copies < 0.03


def test_a_few_copies_among_new_images_are_counted():
    train, held_out, generated = (RNG.normal(size=(rows, 4)) for rows in (2000, 1000, 1000))
    generated[:100] = train[:100] + 1e-4
    result = memorisation(nearest(generated, train).distance, nearest(held_out, train).distance)
    assert result.copies == pytest.approx(0.11, abs=0.02)  # and the 1% that is so near by chance


def test_a_smooth_model_that_copies_nothing_is_told_from_one_that_does():
    train, held_out = RNG.normal(size=(2000, 4)), RNG.normal(size=(1000, 4))
    distances = nearest(held_out, train).distance
    copied = memorisation(nearest(train[:500] + RNG.normal(size=(500, 4)) * 1e-3, train).distance, distances)
    assert copied.closer > 0.99
    assert copied.z > 10
    assert copied.copies > 0.95


def test_copies_are_unknown_where_held_out_images_are_training_images():
    distances = np.r_[np.zeros(5), np.ones(95)]
    assert np.isnan(memorisation(np.zeros(100), distances).copies)
    assert memorisation(np.zeros(100), np.ones(100)).copies == 1.0


def test_what_does_not_compare():
    with pytest.raises(ValueError, match="do not compare"):
        nearest(np.zeros((2, 3)), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="do not compare"):
        memorisation(np.zeros(0), np.zeros(3))
