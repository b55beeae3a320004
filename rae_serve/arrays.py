"""The array types of the library, and the checks of values that callers give."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rae_serve.errors import InvalidInput

Pixels = npt.NDArray[np.uint8]  # [H, W, C] or [N, H, W, C]
Latents = npt.NDArray[np.float32]  # [N, latent_dim]

MAX_INTEGER: Final = 2**53 - 1  # the largest integer that JSON keeps in every language
_MAX_MAGNITUDE = 1e6  # of a latent or noise: far beyond any code, far below float32's overflow in a graph


def integer(field: str, value: Any) -> int:
    """`value` as an integer from 0 to 2⁵³−1, or InvalidInput naming `field`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidInput(field, f"must be an integer, not {value!r}") from None
    if isinstance(value, bool) or not 0 <= number <= MAX_INTEGER:
        raise InvalidInput(field, f"must be an integer from 0 to {MAX_INTEGER}, not {value!r}")
    return number


def numbers(field: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(field, f"must be numbers, not {values!r}") from None


def finite(field: str, rows: npt.ArrayLike | list[npt.ArrayLike], dim: int) -> Latents:
    try:
        with np.errstate(over="ignore"):  # what overflows is refused below
            array = np.asarray(rows, dtype=np.float32)
    except (TypeError, ValueError):
        raise InvalidInput(field, f"must be numbers of shape {shape_text((dim,))}") from None
    if array.ndim != 2 or array.shape[1] != dim or len(array) < 1:
        raise InvalidInput(field, f"must have shape {shape_text((dim,))}, not {list(array.shape)}")
    if not (np.abs(array) <= _MAX_MAGNITUDE).all():
        raise InvalidInput(field, f"must be finite numbers within ±{_MAX_MAGNITUDE:g}")
    return array


def shape_text(shape: Sequence[int]) -> str:
    return f"[N, {', '.join(map(str, shape))}]"
