"""Array types of the library, and checks of the values that callers pass in."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from rae_serve.errors import InvalidInput

Pixels = npt.NDArray[np.uint8]  # [H, W, C] or [N, H, W, C]
Float = TypeVar("Float", bound=np.floating[Any])
Latents = npt.NDArray[np.float32]  # [N, latent_dim]

MAX_INTEGER: Final = 2**53 - 1  # the largest integer that JSON keeps exact in every language
# Limit for one number of a latent or noise: far above any real value, far below float32 overflow inside a graph.
_MAX_MAGNITUDE: Final = 1e6


def integer(field: str, value: Any, least: int = 0) -> int:
    """Return `value` as an integer.

    Args:
        field: Name of the input, for the error.
        value: Any integer type, such as numpy's; bool and float are refused.
        least: The smallest value that is allowed. The largest is 2⁵³−1.

    Raises:
        InvalidInput: `value` is no integer in this range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidInput(field, f"must be an integer, not {value!r}") from None
    if isinstance(value, bool) or not least <= number <= MAX_INTEGER:
        raise InvalidInput(field, f"must be an integer from {least} to {MAX_INTEGER}, not {value!r}")
    return number


def integers(field: str, values: npt.ArrayLike) -> npt.NDArray[np.integer[Any]]:
    """Return `values` as an array [N] of integers, N ≥ 1. Raise InvalidInput if one is not from 0 to 2⁵³−1."""
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu":
        raise InvalidInput(field, f"must be integers of shape [N], not {array.dtype} {list(array.shape)}")
    wrong = array[(array < 0) | (array > MAX_INTEGER)]
    if len(wrong):
        raise InvalidInput(field, f"must be integers from 0 to {MAX_INTEGER}, not {wrong[0]}")
    return array


def at_most(field: str, count: int, limit: int, what: str = "") -> None:
    """Raise InvalidInput if a request asks for more than the limit allows.

    Args:
        field: Name of the input, for the error.
        count: How many the caller asks for.
        limit: The largest count that is allowed.
        what: Plural noun for the things counted, such as "rows"; left out of the message if empty.
    """
    if count > limit:
        raise InvalidInput(field, f"must be at most {limit}{' ' + what if what else ''}, not {count}")


def in_range(field: str, value: float, low: float, high: float, what: str = "") -> None:
    """Raise InvalidInput unless low ≤ value ≤ high; NaN is refused.

    Args:
        field: Name of the input, for the error.
        value: The number to check.
        low: The smallest number that is allowed.
        high: The largest number that is allowed.
        what: Words that complete "must be from LOW to HIGH", such as "for a single file"; none if empty.
    """
    if not low <= value <= high:
        problem = f"must be from {low:.12g} to {high:.12g}{' ' + what if what else ''}"
        raise InvalidInput(field, f"{problem}, not {value}")


def numbers(field: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return `values` as a float64 array of any shape, or raise InvalidInput if they are not numbers."""
    try:
        return _real(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(field, f"must be numbers, not {values!r}") from None


def _real(values: npt.ArrayLike | list[npt.ArrayLike], dtype: type[Float]) -> npt.NDArray[Float]:
    """Return `values` as floats. Raise TypeError for text and complex numbers, which numpy would convert."""
    array = np.asarray(values)
    if array.dtype.kind not in "biufO":
        raise TypeError(f"{array.dtype} is no type of real numbers")
    return array.astype(dtype, copy=False)


def finite_rows(field: str, rows: npt.ArrayLike | list[npt.ArrayLike], dim: int) -> Latents:
    """Return `rows` as a float32 array [N, dim].

    Args:
        field: Name of the input, for the error.
        rows: At least one row of `dim` numbers.
        dim: Numbers per row.

    Raises:
        InvalidInput: The shape is wrong, or a number is not finite or beyond ±1e6.
    """
    try:
        with np.errstate(over="ignore"):  # the check below refuses numbers that overflow float32
            array = _real(rows, np.float32)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(field, f"must be real numbers of shape {shape_text((dim,))}") from None
    if array.ndim != 2 or array.shape[1] != dim or len(array) < 1:
        raise InvalidInput(field, f"must have shape {shape_text((dim,))}, not {list(array.shape)}")
    if not (np.abs(array) <= _MAX_MAGNITUDE).all():
        raise InvalidInput(field, f"must be finite numbers within ±{_MAX_MAGNITUDE:g}")
    return array


def decimals(rows: Latents) -> list[list[float]]:
    """Return rows [N, D] as the shortest decimals that give the same float32 again."""
    return [[float(np.format_float_positional(x, trim="0")) for x in row] for row in rows]


def shape_text(shape: Sequence[int]) -> str:
    """Return the shape of N rows as text: (28, 28, 1) gives "[N, 28, 28, 1]"."""
    return f"[{', '.join(['N', *map(str, shape)])}]"
