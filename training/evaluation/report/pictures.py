"""Pictures of a model: arrays in, PNG files out. Grids are one pixel a pixel, charts are drawn by matplotlib."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from rae_serve import images as pictures
from rae_serve.arrays import Pixels
from training.evaluation.figures import Neighbours, Sets
from training.evaluation.metrics.latents import ACTIVE
from training.evaluation.metrics.memorisation import Nearest
from training.evaluation.subject import Codes, Subject

_COLUMNS: Final = 12
_INTERPOLATED: Final = 6
_STEPS: Final = 11
_POINTS: Final = 2000


def samples(these: Sets) -> bytes:
    """The first generated images of the seed."""
    return pictures.encode(pictures.grid(these.generated[: 6 * _COLUMNS], _COLUMNS))


def reconstructions(these: Sets) -> bytes:
    """Held-out images, each row above the row of their reconstructions."""
    rows = min(3, len(these.held_out) // _COLUMNS or 1)
    return pictures.encode(_paired_rows(these.held_out, these.reconstructed, rows))


def interpolations(these: Sets, subject: Subject) -> bytes:
    """A row a pair of held-out images: decoded along the straight line between their codes."""
    pairs = min(_INTERPOLATED, len(these.codes) // 2)
    starts, ends = these.codes[:pairs, None], these.codes[pairs : 2 * pairs, None]
    along = np.linspace(0.0, 1.0, _STEPS, dtype=np.float32)[:, None]
    latents = (1.0 - along) * starts + along * ends
    decoded = subject.decode(latents.reshape(-1, latents.shape[-1]))
    return pictures.encode(pictures.grid(decoded, _STEPS))


def neighbours(these: Sets, found: Neighbours, *, suspicious: bool) -> dict[str, bytes]:
    """Images above their nearest training images, generated and held-out: the first, or those that are nearest."""
    both: dict[str, tuple[Pixels, Nearest]] = {
        "generated": (these.generated, found.generated),
        "held_out": (these.held_out, found.held_out),
    }
    grids = {}
    for name, (images, near) in both.items():
        order = np.argsort(near.distance) if suspicious else np.arange(len(images))
        shown = order[:_COLUMNS]
        grids[name] = pictures.encode(_paired_rows(images[shown], these.train[near.index[shown]], 1))
    return grids


def covariance(these: Sets) -> bytes:
    """The correlation matrices of the codes and of the prior's latents, side by side."""
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    for axes, (title, latents) in zip(figure.subplots(1, 2), _both(these), strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):  # a dimension that does not vary: left white
            matrix = np.atleast_2d(np.corrcoef(latents.astype(np.float64), rowvar=False))
        drawn = axes.imshow(matrix, vmin=-1.0, vmax=1.0, cmap="RdBu_r")
        axes.set(title=title, xlabel="dimension", ylabel="dimension")
    figure.colorbar(drawn, ax=figure.axes, label="correlation", shrink=0.8)
    return _png(figure)


def activity(these: Sets) -> bytes:
    """The standard deviation of each dimension, of codes and of the prior, and the line below which one is idle."""
    figure = Figure(figsize=(8.0, 2.8), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(these.codes.shape[1])
    for shift, (title, latents) in zip((-0.2, 0.2), _both(these), strict=True):
        axes.bar(positions + shift, latents.std(axis=0), width=0.4, label=title)
    idle = np.sqrt(ACTIVE) * these.codes.std(axis=0).max()
    axes.axhline(idle, color="black", linewidth=1, linestyle=":", label="idle below")
    axes.set(xlabel="dimension", ylabel="standard deviation")
    axes.legend()
    return _png(figure)


def embedding(these: Sets) -> bytes:
    """Codes and the prior's latents on the first two principal axes of the codes."""
    centre = these.codes.mean(axis=0)
    axes_of_codes = np.linalg.svd((these.codes - centre).astype(np.float64), full_matrices=False)[2][:2]
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for title, latents in _both(these):
        flat = ((latents[:_POINTS] - centre) @ axes_of_codes.T).T
        axes.scatter(flat[0], flat[-1], s=4, alpha=0.4, linewidths=0, label=title)
    axes.set(xlabel="first principal axis of the codes", ylabel="second", aspect="equal")
    axes.legend(markerscale=4)
    return _png(figure)


def _both(these: Sets) -> list[tuple[str, Codes]]:
    return [("codes of held-out images", these.codes), ("latents of the prior", these.latents)]


def _paired_rows(above: Pixels, below: Pixels, rows: int) -> Pixels:
    """Rows of up to 12 images, each over the row of its partners."""
    columns = min(_COLUMNS, len(above) // rows)
    shape = (rows, columns, *above.shape[1:])
    pairs = np.stack([part[: rows * columns].reshape(shape) for part in (above, below)], axis=1)
    return pictures.grid(pairs.reshape(-1, *above.shape[1:]), columns)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
