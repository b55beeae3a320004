"""Ways from one point to another: pure functions of rows, in noise or in latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Path = Literal["linear", "spherical"]
Space = Literal["latent", "noise"]
Rows = npt.NDArray[np.float32]  # [N, D]; one point is [D]
Float64 = npt.NDArray[np.float64]

_PARALLEL = 1e-6  # radians: below it, sin Ω is rounding, and the arc is the line


def between(start: Rows, end: Rows, steps: int, path: Path, centre: npt.ArrayLike = 0.0) -> Rows:
    """`steps` points [steps, D] from `start` to `end` [D], both included; one step is `start` alone.

    Linear is the straight line. Spherical is the arc about `centre` (Shoemake, "Animating rotation with
    quaternion curves", SIGGRAPH 1985): it keeps its distance from the centre, which a Gaussian's samples in
    many dimensions nearly share, where the line cuts through a middle that has none. Two points in the same or
    in opposite directions from the centre have no single arc; the line is taken.
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
    """As `between`, of noise about 0: its gaussian columns move, and a `choice` column is never mixed.

    A choice selects a component of the prior; a value between two may select a third. So the first half of
    the way has the start's choices, the second half the end's.
    """
    gaussian = np.array([role == "gaussian" for role in roles])
    late = np.linspace(0.0, 1.0, steps) >= 0.5
    rows: Rows = np.where(late[:, None], end, start).astype(np.float32)
    rows[:, gaussian] = between(start[gaussian], end[gaussian], steps, path)
    return rows


def along(latents: Rows, direction: npt.ArrayLike, strengths: npt.ArrayLike) -> Rows:
    """Every latent [N, D] moved by every strength [S] along a direction [D]: [N · S, D], latent by latent."""
    moves = np.multiply.outer(np.asarray(strengths, np.float64), np.asarray(direction, np.float64))
    moved: Rows = (latents[:, None, :] + moves[None]).astype(np.float32)
    return moved.reshape(-1, latents.shape[1])


def _angle(a: Float64, b: Float64) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.arccos(np.clip(a @ b / norms, -1.0, 1.0))) if norms else 0.0
