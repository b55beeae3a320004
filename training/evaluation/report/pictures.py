"""Pictures of a model: arrays in, PNG files out. Grids show each pixel once; matplotlib draws the charts."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from rae_serve.arrays import Latents, Pixels
from rae_serve.images import encode, grid
from training.evaluation.figures import EvaluationData, Neighbours
from training.evaluation.metrics.latents import ACTIVE
from training.evaluation.metrics.memorisation import Nearest
from training.evaluation.subject import Subject

_COLUMNS: Final = 12
_INTERPOLATED: Final = 6
_STEPS: Final = 11
_POINTS: Final = 2000


def samples(data: EvaluationData) -> bytes:
    """Show the first generated images of the seed."""
    return encode(grid(data.generated[: 6 * _COLUMNS], _COLUMNS))


def reconstructions(data: EvaluationData) -> bytes:
    """Show held-out images, each row above the row of its reconstructions."""
    rows = min(3, len(data.held_out) // _COLUMNS or 1)
    return encode(_paired_rows(data.held_out, data.reconstructed, rows))


def interpolations(data: EvaluationData, subject: Subject) -> bytes:
    """Show one row per pair of held-out images: images decoded along the straight line between latents."""
    pairs = min(_INTERPOLATED, len(data.encoded) // 2)
    starts, ends = data.encoded[:pairs, None], data.encoded[pairs : 2 * pairs, None]
    along = np.linspace(0.0, 1.0, _STEPS, dtype=np.float32)[:, None]
    latents = (1.0 - along) * starts + along * ends
    return encode(grid(subject.decode(latents.reshape(-1, latents.shape[-1])), _STEPS))


def neighbours(data: EvaluationData, found: Neighbours, *, nearest_first: bool) -> dict[str, bytes]:
    """Show generated images, and held-out images, above their nearest training images.

    Args:
        data: The images.
        found: The nearest training images.
        nearest_first: Whether to show the images with the smallest distances instead of the first images.
    """
    both: dict[str, tuple[Pixels, Nearest]] = {
        "generated": (data.generated, found.generated),
        "held_out": (data.held_out, found.held_out),
    }
    grids = {}
    for name, (images, nearest) in both.items():
        order = np.argsort(nearest.distance) if nearest_first else np.arange(len(images))
        shown = order[:_COLUMNS]
        grids[name] = encode(_paired_rows(images[shown], data.train[nearest.row[shown]], 1))
    return grids


def covariance(data: EvaluationData) -> bytes:
    """Draw the correlation matrices of latents of images and of the prior, side by side."""
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    for axes, (title, latents) in zip(figure.subplots(1, 2), _both(data), strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):  # a constant dimension stays white
            matrix = np.atleast_2d(np.corrcoef(latents.astype(np.float64), rowvar=False))
        drawn = axes.imshow(matrix, vmin=-1.0, vmax=1.0, cmap="RdBu_r")
        axes.set(title=title, xlabel="dimension", ylabel="dimension")
    figure.colorbar(drawn, ax=figure.axes, label="correlation", shrink=0.8)
    return png(figure)


def activity(data: EvaluationData) -> bytes:
    """Draw each dimension's standard deviation over images and over the prior, and the limit for idle dimensions."""
    figure = Figure(figsize=(8.0, 2.8), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(data.encoded.shape[1])
    for shift, (title, latents) in zip((-0.2, 0.2), _both(data), strict=True):
        axes.bar(positions + shift, latents.std(axis=0), width=0.4, label=title)
    idle = np.sqrt(ACTIVE) * data.encoded.std(axis=0).max()
    axes.axhline(idle, color="black", linewidth=1, linestyle=":", label="idle below")
    axes.set(xlabel="dimension", ylabel="standard deviation")
    axes.legend()
    return png(figure)


def embedding(data: EvaluationData) -> bytes:
    """Draw latents of images and of the prior on the first two principal axes of the former."""
    centre = data.encoded.mean(axis=0)
    principal_axes = np.linalg.svd((data.encoded - centre).astype(np.float64), full_matrices=False)[2][:2]
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for title, latents in _both(data):
        flat = ((latents[:_POINTS] - centre) @ principal_axes.T).T
        axes.scatter(flat[0], flat[-1], s=4, alpha=0.4, linewidths=0, label=title)
    axes.set(xlabel="first principal axis of latents of images", ylabel="second principal axis", aspect="equal")
    axes.legend(markerscale=4)
    return png(figure)


def _both(data: EvaluationData) -> list[tuple[str, Latents]]:
    return [("latents of held-out images", data.encoded), ("latents of the prior", data.sampled)]


def _paired_rows(above: Pixels, below: Pixels, rows: int) -> Pixels:
    """Make a grid of rows of up to 12 images, each row above the row of its partners."""
    columns = min(_COLUMNS, len(above) // rows)
    shape = (rows, columns, *above.shape[1:])
    pairs = np.stack([part[: rows * columns].reshape(shape) for part in (above, below)], axis=1)
    return grid(pairs.reshape(-1, *above.shape[1:]), columns)


def png(figure: Figure) -> bytes:
    """Return a chart as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
