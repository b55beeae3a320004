from __future__ import annotations

import numpy as np
import pytest

from rae_serve import arrays
from rae_serve.errors import InvalidInput


def test_a_count_above_its_limit_is_refused_by_name():
    arrays.at_most("n", 4, 4)
    with pytest.raises(InvalidInput, match=r"^n: must be at most 4, not 5$") as raised:
        arrays.at_most("n", 5, 4)
    assert raised.value.field == "n"
    with pytest.raises(InvalidInput, match=r"^latents: must be at most 4 rows, not 5$"):
        arrays.at_most("latents", 5, 4, "rows")


def test_a_number_outside_its_range_is_refused_by_name():
    for value in (0, 10, 2.5):
        arrays.in_range("temperature", value, 0, 10.0)
    for value in (-1, 10.5, float("nan")):
        with pytest.raises(InvalidInput, match=rf"^temperature: must be from 0 to 10, not {value}$"):
            arrays.in_range("temperature", value, 0, 10.0)
    with pytest.raises(InvalidInput, match=r"^n: must be from 1 to 1000000 for x\.png, not 0$"):
        arrays.in_range("n", 0, 1, 1_000_000, "for x.png")


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((1, 2), np.complex64),
        [[1 + 2j, 3]],
        np.array([["1", "2"]]),
        np.array([[b"1", b"2"]]),
        np.array([[object(), 1]], dtype=object),
        np.array([[1j, 1]], dtype=object),
        np.zeros((1, 2), "datetime64[s]"),
        np.zeros((1, 2), [("a", np.float32)]),
        [[1.0], [1.0, 2.0]],
        [[10**400, 1]],
    ],
)
def test_what_is_no_real_number_is_refused_and_not_converted(rows):
    with pytest.raises(InvalidInput, match=r"^latents: must be real numbers of shape \[N, 2\]$"):
        arrays.finite_rows("latents", rows, 2)
    with pytest.raises(InvalidInput, match=r"^strengths: must be numbers, not "):
        arrays.numbers("strengths", rows)


@pytest.mark.parametrize("rows", [[[1, 2]], np.array([[1, 2]], np.uint8), np.array([[1, 2]], np.longdouble)])
def test_every_type_of_real_numbers_is_taken(rows):
    for taken in (arrays.finite_rows("latents", rows, 2), arrays.numbers("strengths", rows)):
        assert taken.tolist() == [[1.0, 2.0]]
