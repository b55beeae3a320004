"""The rules of docs/preprocessing.md once more, with numpy alone: what `Preprocessing` must give to the byte.

Pictures are integers [H, W, C], as the file holds them, with C = 1 (grey), 2 (grey and alpha), 3 or 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rae_serve.preprocessing import Preprocessing

Samples = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def in_8_bits(samples: npt.NDArray[Any], bits: int) -> Samples:
    """Step 1: the same picture with 8 bits per sample."""
    wide = samples.astype(np.int64)
    return wide >> 8 if bits == 16 else wide * 255 // (2**bits - 1)


def from_inks(cmyk: npt.NDArray[Any]) -> Samples:
    """Step 1: a CMYK picture in RGB."""
    white = 255 - cmyk[..., 3:].astype(np.int64)
    t = cmyk[..., :3] * white + 128
    return white - ((t + (t >> 8)) >> 8)


def upright(samples: Samples, orientation: int) -> Samples:
    """Step 2. The orientation says on which sides the stored row 0 and column 0 belong (EXIF 2.3, 4.6.4)."""
    match orientation:
        case 2:  # top, right
            return samples[:, ::-1]
        case 3:  # bottom, right
            return samples[::-1, ::-1]
        case 4:  # bottom, left
            return samples[::-1]
        case 5:  # left, top
            return samples.transpose(1, 0, 2)
        case 6:  # right, top
            return samples.transpose(1, 0, 2)[:, ::-1]
        case 7:  # right, bottom
            return samples.transpose(1, 0, 2)[::-1, ::-1]
        case 8:  # left, bottom
            return samples.transpose(1, 0, 2)[::-1]
    return samples


def prepared(samples: Samples, rules: Preprocessing, orientation: int = 1) -> npt.NDArray[np.uint8]:
    """Steps 2 to 6 on a picture of 8-bit samples."""
    picture = in_mode(upright(samples, orientation), rules.mode, rules.background)
    height, width = picture.shape[:2]
    left, top, right, bottom = box(width, height, rules)
    line = nearest if rules.resize == "nearest" else lambda *given: resampled(*given, FILTERS[rules.resize])
    across = line(picture.swapaxes(0, 1), left, right, rules.width).swapaxes(0, 1)
    return line(across, top, bottom, rules.height).astype(np.uint8)


def in_mode(samples: Samples, mode: str, background: int) -> Samples:
    """Steps 3 and 4."""
    channels = samples.shape[2]
    if channels in (2, 4):
        alpha = samples[..., -1:]
        t = samples[..., :-1] * alpha + background * (255 - alpha) + 128
        samples = (t + (t >> 8)) >> 8
    if samples.shape[2] == 1:
        return samples.repeat(3, axis=2) if mode == "RGB" else samples
    return samples if mode == "RGB" else (samples @ np.array([[19595], [38470], [7471]]) + 32768) >> 16


def box(w: int, h: int, rules: Preprocessing) -> tuple[float, ...]:
    """Step 5."""
    if rules.crop == "none":
        return 0.0, 0.0, float(w), float(h)
    s = min(w / rules.width, h / rules.height)
    u, v = min(w, rules.width * s), min(h, rules.height * s)
    if isinstance(rules.crop, int) and rules.crop <= min(w, h):
        u = v = rules.crop
    left, top = (w - u) / 2, (h - v) / 2
    return tuple(float(np.float32(edge)) for edge in (left, top, left + u, top + v))


class Filter(NamedTuple):
    half_width: float
    weight: Callable[[float], float]


def _sinc(x: float) -> float:
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)


def _hamming(x: float) -> float:
    if x == 0:
        return 1.0
    return _sinc(x) * (0.54 + 0.46 * math.cos(math.pi * x)) if abs(x) < 1 else 0.0


def _bicubic(x: float) -> float:
    c, x = -0.5, abs(x)
    if x < 1:
        return ((c + 2) * x - (c + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * c if x < 2 else 0.0


FILTERS = {
    "box": Filter(0.5, lambda x: float(-0.5 < x <= 0.5)),
    "bilinear": Filter(1, lambda x: max(0.0, 1 - abs(x))),
    "hamming": Filter(1, _hamming),
    "bicubic": Filter(2, _bicubic),
    "lanczos": Filter(3, lambda x: _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0),
}


def resampled(lines: Samples, a: float, b: float, m: int, kernel: Filter) -> Samples:
    """Step 6: the first axis of [n, …] to m pixels."""
    n = len(lines)
    scale = float(np.float32(b) - np.float32(a)) / m
    wide = max(scale, 1.0)
    reach = kernel.half_width * wide
    result = np.empty((m, *lines.shape[1:]), np.int64)
    for i in range(m):
        centre = a + (i + 0.5) * scale
        first = max(0, math.floor(centre - reach + 0.5))
        end = min(n, math.floor(centre + reach + 0.5))
        weights = [kernel.weight((j - centre + 0.5) * (1 / wide)) for j in range(first, end)]
        total = sum(weights)
        k = [math.floor(abs(w / total) * 2**22 + 0.5) * (1 if w > 0 else -1) for w in weights]
        result[i] = (2**21 + np.tensordot(np.array(k, np.int64), lines[first:end], 1)) >> 22
    return result.clip(0, 255)


def nearest(lines: Samples, a: float, b: float, m: int) -> Samples:
    """Step 6 of the filter `nearest`."""
    scale, rows = (b - a) / m, []
    x = a + 0.5 * scale
    for _ in range(m):
        rows.append(math.floor(x))
        x += scale
    return lines[rows]
