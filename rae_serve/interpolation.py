"""Interpolation between two points, and steps along a direction: pure functions of noise or latent rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Path = Literal["linear", "spherical"]
Space = Literal["latent", "noise"]
Rows = npt.NDArray[np.float32]  # [N, D]; one point is [D]
Float64 = npt.NDArray[np.float64]

_PARALLEL: Final = 1e-6  # radians; for smaller angles Ω, rounding dominates sin Ω, and the arc is a line anyway


def between(start: Rows, end: Rows, steps: int, path: Path, centre: npt.ArrayLike = 0.0) -> Rows:
    """Interpolate between two points.

    "linear" is the straight line. "spherical" is the arc around `centre` (Shoemake, "Animating rotation with
    quaternion curves", SIGGRAPH 1985, https://doi.org/10.1145/325165.325242). In many dimensions, the samples of a
    Gaussian lie at nearly the same distance from the centre. The arc keeps this distance, whereas the line passes
    through the region near the centre, where almost no samples lie. If the two points lie in the same or in opposite
    directions from the centre, no unique arc exists, and the line is used.

    Args:
        start: The first point [D].
        end: The last point [D].
        steps: How many points to return, both ends included; 1 returns `start` only.
        path: "linear" or "spherical".
        centre: The centre of the arc, [D] or a number for all dimensions; "linear" ignores it.

    Returns:
        Points [steps, D]; the first and the last equal `start` and `end` to the bit.
    """
    t = np.linspace(0.0, 1.0, steps)[:, None]
    middle = np.asarray(centre, np.float64)
    a, b = (np.asarray(point, np.float64) - middle for point in (start, end))
    angle = _angle(a, b) if path == "spherical" else 0.0
    if _PARALLEL < angle < np.pi - _PARALLEL:
        points = (np.sin((1.0 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    else:
        points = (1.0 - t) * a + t * b
    rows: Rows = (points + middle).astype(np.float32)
    rows[0] = start
    if steps > 1:
        rows[-1] = end
    return rows


def between_noises(start: Rows, end: Rows, steps: int, path: Path, roles: Sequence[str]) -> Rows:
    """Interpolate between two rows of noise: `gaussian` columns by `between` around 0, `choice` columns by a switch.

    A choice column selects a component of the prior, and a value between two choices could select a third component.
    So the first half of the steps has the choices of `start`, and the second half those of `end`.

    Args:
        start: The first row [noise_dim].
        end: The last row [noise_dim].
        steps: How many rows to return, both ends included; 1 returns `start` only.
        path: "linear" or "spherical".
        roles: The role of each column, "gaussian" or "choice".

    Returns:
        Noise [steps, noise_dim].
    """
    gaussian = np.array([role == "gaussian" for role in roles])
    second_half = np.linspace(0.0, 1.0, steps) >= 0.5
    rows: Rows = np.where(second_half[:, None], end, start).astype(np.float32)
    rows[:, gaussian] = between(start[gaussian], end[gaussian], steps, path)
    return rows


def along(latents: Rows, direction: npt.ArrayLike, strengths: npt.ArrayLike) -> Rows:
    """Move every latent along a direction by every strength.

    Args:
        latents: Latents [N, D].
        direction: The direction [D]; strength 1 adds it once.
        strengths: Factors [S] on the direction.

    Returns:
        Latents [N · S, D]: all strengths of the first latent, then of the second, and so on.
    """
    moves = np.multiply.outer(np.asarray(strengths, np.float64), np.asarray(direction, np.float64))
    moved: Rows = (latents[:, None, :] + moves[None]).astype(np.float32)
    return moved.reshape(-1, latents.shape[1])


def _angle(a: Float64, b: Float64) -> float:
    """Return the angle between two vectors in radians; 0 if one of them is zero."""
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.arccos(np.clip(a @ b / norms, -1.0, 1.0))) if norms else 0.0
