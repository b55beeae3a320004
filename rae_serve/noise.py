"""Noise `philox4x32-10/v1`: row i of seed s is a function of (s, i) only, equal to the bit in every language.

The generator Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011,
https://doi.org/10.1145/2063384.2063405) turns (seed, row, block) into four 32-bit words. The inverse of the normal
distribution function (Wichura, "Algorithm AS 241", 1988, routine PPND16, https://doi.org/10.2307/2347330) turns each
word into one standard normal. All arithmetic after the words is float64 with + − × ÷ √ only, because IEEE 754 rounds
these the same everywhere; this is why the logarithm is implemented here too. `docs/noise.md` is the specification.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rae_serve.arrays import MAX_INTEGER, integer

ALGORITHM: Final = "philox4x32-10/v1"
ROUNDS: Final = 10

Words = npt.NDArray[np.uint64]  # one 32-bit word per element; 64 bits hold the product of two words
Float64 = npt.NDArray[np.float64]
SeededRows = npt.NDArray[Any]  # [N], made by `seeded_rows`

_SEEDED_ROW = np.dtype([("seed", np.uint64), ("row", np.uint64), ("temperature", np.float32)])

_LOW32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
# What is added to the key in each round, [10, 2, 1].
_KEY_STEPS = np.arange(ROUNDS, dtype=np.uint64)[:, None, None] * np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)

# AS 241, PPND16: coefficients of the numerator and the denominator, lowest power first.
_CENTRAL = np.array((
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)).T  # fmt: skip
_TAIL = np.array((
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)).T  # fmt: skip
_LN2 = 0.6931471805599453
_SQRT2 = 1.4142135623730951
_LOG_SERIES: Float64 = np.array([1.0 / (2 * k + 1) for k in range(11)])


def normals(seed: int, start: int, count: int, dim: int) -> npt.NDArray[np.float32]:
    """Return consecutive rows of a seed's noise.

    Args:
        seed: The seed, from 0 to 2⁵³−1.
        start: The first row.
        count: The number of rows.
        dim: Numbers per row.

    Returns:
        Standard normals, float32 [count, dim]: rows start … start + count − 1.

    Raises:
        InvalidInput: The seed or a row is outside 0 … 2⁵³−1.
    """
    seed = integer("seed", seed)
    start = integer("offset", start)
    integer("offset", start + max(count, 1) - 1)
    rows = np.arange(start, start + count, dtype=np.uint64)
    return rows_of_seeds(np.full(count, seed, np.uint64), rows, dim)


def rows_of_seeds(seeds: Words, rows: Words, dim: int) -> npt.NDArray[np.float32]:
    """Return one row of noise for each pair of a seed and a row.

    Args:
        seeds: N seeds, each from 0 to 2⁵³−1.
        rows: N row numbers, each from 0 to 2⁵³−1.
        dim: Numbers per row.

    Returns:
        Standard normals, float32 [N, dim].
    """
    blocks = -(-dim // 4)
    seed, row = np.repeat(seeds, blocks), np.repeat(rows, blocks)
    block = np.tile(np.arange(blocks, dtype=np.uint64), len(rows))
    counter = np.stack([block, np.zeros_like(block), row & _LOW32, row >> _SHIFT32])
    words = philox4x32(counter, np.stack([seed & _LOW32, seed >> _SHIFT32]))
    return inverse_normal(words.T.reshape(len(rows), blocks * 4)[:, :dim]).astype(np.float32)


def seeded_rows(seed: int | npt.NDArray[Any], rows: npt.NDArray[Any], temperature: float) -> SeededRows:
    """Return rows of seeds whose noise is not generated yet, so that many requests can share one call of `of_rows`.

    Args:
        seed: The seed of all rows, or N seeds, each from 0 to 2⁵³−1.
        rows: N row numbers, each from 0 to 2⁵³−1.
        temperature: Factor on the gaussian columns of the noise.
    """
    seeded = np.empty(len(rows), _SEEDED_ROW)
    seeded["seed"], seeded["row"], seeded["temperature"] = seed, rows, temperature
    return seeded


def of_rows(rows: SeededRows, roles: Sequence[str]) -> npt.NDArray[np.float32]:
    """Generate the noise of N seeded rows, float32 [N, noise_dim], with their temperatures applied.

    Args:
        rows: The rows, of any seeds.
        roles: The role of each column, as the manifest lists them.
    """
    noise = rows_of_seeds(rows["seed"], rows["row"], len(roles))
    if (rows["temperature"] != 1.0).any():
        gaussian = [i for i, role in enumerate(roles) if role == "gaussian"]
        noise[:, gaussian] *= rows["temperature"][:, None]
    return noise


def philox4x32(counter: Words, key: Words) -> Words:
    """Apply Philox4x32-10 to N counters.

    Args:
        counter: Four words of each counter, [4, N].
        key: Two words of each key, [2, N], or [2, 1] for one key for all.

    Returns:
        Words below 2³², [4, N].
    """
    # Words 0 and 2 are multiplied, words 1 and 3 are not; NumPy takes both of a pair in one call.
    factors, others = counter[0::2], counter[1::2]
    for round_key in (key + _KEY_STEPS) & _LOW32:
        products = _MULTIPLIERS * factors
        factors = (products >> _SHIFT32)[::-1] ^ others ^ round_key
        others = (products & _LOW32)[::-1]
    return np.stack([factors[0], others[0], factors[1], others[1]])


def inverse_normal(words: Words) -> Float64:
    """Return Φ⁻¹((w + ½) / 2³²) for 32-bit words w: float64 within ±6.4, symmetric about w = 2³¹ − ½."""
    q = (words.astype(np.float64) - 2147483647.5) / 4294967296.0
    result = q * _ratio(_CENTRAL, 0.180625 - q * q)
    tails = np.abs(q) > 0.425
    word = words[tails]
    depth = np.minimum(word, _LOW32 - word)
    radius = np.sqrt(-_log_of_probability(depth))
    result[tails] = np.where(q[tails] < 0, -1.0, 1.0) * _ratio(_TAIL, radius - 1.6)
    return result


def random_seed() -> int:
    """Return a new seed from the operating system's random generator."""
    return secrets.randbelow(MAX_INTEGER + 1)


def _log_of_probability(depth: Words) -> Float64:
    """Return ln((depth + ½) / 2³²), from the power series of 2·artanh on [√½, √2]."""
    mantissa, exponent = np.frexp(2.0 * depth.astype(np.float64) + 1.0)  # mantissa in [½, 1)
    mantissa, exponent = 2.0 * mantissa, exponent - 1
    high = mantissa > _SQRT2
    mantissa, exponent = np.where(high, 0.5 * mantissa, mantissa), exponent + high
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return 2.0 * s * _polynomial(_LOG_SERIES, s * s) + (exponent - 33) * _LN2


def _ratio(coefficients: Float64, x: Float64) -> Float64:
    """Evaluate a ratio of two polynomials, whose coefficients are [K, 2]."""
    both = _polynomial(coefficients.reshape(-1, 2, *(1,) * x.ndim), x)
    ratio: Float64 = both[0] / both[1]
    return ratio


def _polynomial(coefficients: Float64, x: Float64) -> Float64:
    """Evaluate a polynomial by Horner's rule, or several at once; the first axis has the lowest power first."""
    result: Float64 = coefficients[-1] * x
    for coefficient in coefficients[-2:0:-1]:
        result += coefficient
        result *= x
    result += coefficients[0]
    return result
