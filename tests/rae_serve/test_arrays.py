from __future__ import annotations

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
