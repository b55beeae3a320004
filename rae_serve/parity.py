"""Parity: do the ONNX graphs compute what torch computed? The golden arrays of a bundle answer without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rae_serve.engine import Engine
from rae_serve.errors import BundleError
from rae_serve.manifest import Parity, Tolerance

BATCH_SIZES: Final = (1, 2, 7, 64)

Array = npt.NDArray[Any]


def measure(engine: Engine, golden: dict[str, Array]) -> Parity:
    """Measure the largest differences between the graphs' outputs and the golden arrays, over several batch sizes.

    Raises:
        BundleError: The golden arrays do not have the shapes that the graphs need.
    """
    try:
        return Parity(
            batch_sizes=list(BATCH_SIZES),
            prior=_largest(engine.latents, golden["noise"], golden["latent"], _relative),
            decoder_grey_levels=int(_largest(engine.decode, golden["latent"], golden["image"], _grey_levels)),
            encoder=_largest(engine.encode, golden["image"], golden["encoded"], _relative),
            pruning_grey_levels=None,
        )
    except (KeyError, ValueError) as error:
        raise BundleError(f"the golden arrays do not fit the graphs ({error})") from None


def check(parity: Parity, tolerance: Tolerance) -> None:
    """Raise BundleError if a difference is larger than the tolerance."""
    for graph, value in (("prior", parity.prior), ("encoder", parity.encoder)):
        if not value <= tolerance.latents:
            raise BundleError(
                f"{graph}.onnx differs from its golden latents by {value:.3g}, more than {tolerance.latents:g}"
            )
    if parity.decoder_grey_levels > tolerance.grey_levels:
        raise BundleError(
            f"decoder.onnx differs from its golden images by {parity.decoder_grey_levels} grey levels, "
            f"more than {tolerance.grey_levels}"
        )


def _largest(
    run: Callable[[Array], Array], inputs: Array, expected: Array, difference: Callable[[Array, Array], Array]
) -> float:
    differences = [
        difference(run(inputs[rows]), expected[rows]).max()
        for size in BATCH_SIZES
        for rows in _batches(len(inputs), size)
    ]
    return float(np.max(differences))  # unlike Python's max, this is NaN if any difference is NaN


def _batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _relative(actual: Array, expected: Array) -> Array:
    difference: Array = np.abs(actual - expected) / (1.0 + np.abs(expected))
    return difference


def _grey_levels(actual: Array, expected: Array) -> Array:
    return np.abs(actual.astype(np.int64) - expected)
