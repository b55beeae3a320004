from __future__ import annotations

import numpy as np
import pytest

from rae_serve import interpolation

A, B = np.array([1.0, 0, 0], np.float32), np.array([0, 2.0, 0], np.float32)


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_both_ends_are_there_to_the_bit(path):
    rng = np.random.default_rng(1)
    a, b, centre = rng.normal(size=(3, 7)).astype(np.float32)
    points = interpolation.between(a, b, 5, path, centre)
    assert points.shape == (5, 7)
    assert points.dtype == np.float32
    assert np.array_equal(points[[0, -1]], [a, b])
    assert np.array_equal(interpolation.between(a, b, 1, path), [a])


def test_a_line_is_straight_and_an_arc_keeps_its_distance():
    assert np.allclose(interpolation.between(A, B, 3, "linear")[1], [0.5, 1, 0])
    arc = interpolation.between(A, A[[1, 0, 2]], 9, "spherical")
    assert np.allclose(np.linalg.norm(arc, axis=1), 1)
    assert np.allclose(arc[4], np.sqrt([0.5, 0.5, 0]))
    centre = np.array([5.0, -3, 1])
    moved = interpolation.between(A + centre, A[[1, 0, 2]] + centre, 9, "spherical", centre)
    assert np.allclose(moved, arc + centre, atol=1e-6)


@pytest.mark.parametrize("b", [A, -A, 3 * A, 0 * A])
def test_points_without_a_single_arc_go_along_the_line(b):
    assert np.allclose(interpolation.between(A, b, 5, "spherical"), interpolation.between(A, b, 5, "linear"))


def test_choices_are_never_mixed():
    a, b = np.array([1, 0.1, 0], np.float32), np.array([0, 0.9, 1], np.float32)
    points = interpolation.between_noises(a, b, 5, "spherical", ["gaussian", "choice", "gaussian"])
    assert points[:, 1].tolist() == [np.float32(0.1)] * 2 + [np.float32(0.9)] * 3
    assert np.allclose(np.linalg.norm(points[:, [0, 2]], axis=1), 1)


def test_every_latent_moves_by_every_strength():
    moved = interpolation.along(np.stack([A, B]), [0, 0, 2], [-1, 0, 1])
    assert moved.tolist() == [[1, 0, -2], [1, 0, 0], [1, 0, 2], [0, 2, -2], [0, 2, 0], [0, 2, 2]]
