"""What a comparison writes: a table as CSV, a picture, and a page that holds both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rae_serve import files
from rae_serve.arrays import Pixels
from rae_serve.images import grid
from training.comparison.measure import COLUMNS, Measured
from training.evaluation.report import page as report_page
from training.evaluation.report.pictures import png
from training.machine import versions
from training.recipe import Recipe, flat
from training.tables import csv_file
from training.templates import environment

TABLE: Final = "comparison.csv"
PICTURE: Final = "comparison.png"
PAGE: Final = "comparison.html"
LIMIT: Final = "training_distance"  # in the table: the distance of training images
_NOT_COMPARED: Final = ("name", "description", "licence", "seed", "log_every", "sample_every")


class Entry(NamedTuple):
    """One run of a comparison.

    Attributes:
        recipe: The recipe.
        measured: The figures; None if the run failed.
        failure: Why it failed, or "".
    """

    recipe: Recipe
    measured: Measured | None
    failure: str = ""


class Protocol(NamedTuple):
    """How a comparison was made.

    Attributes:
        command: The command that repeats it.
        data: The name of the data set.
        digest: SHA-256 over the training images.
        training: Number of training images.
        held_out: Number of held-out images.
        split: Which images are held out: "test" or "validation".
        label: The name of the Fréchet distance.
        minutes: Time budget of each run; None for that of its recipe.
    """

    command: str
    data: str
    digest: str
    training: int
    held_out: int
    split: str
    label: str
    minutes: float | None


class Row(NamedTuple):
    """A row of the page: one system, its figures as text, and which of them are the best of their column."""

    name: str
    cells: list[str]
    best: list[bool]
    failure: str


def write(out: Path, entries: Sequence[Entry], protocol: Protocol) -> None:
    """Write the table, the picture and the page.

    Args:
        out: The folder.
        entries: The runs, those of one recipe side by side.
        protocol: How the comparison was made.
    """
    picture = _picture(entries)
    same, different = _keys(entries)
    report = Path(report_page.__file__).parent  # has the style
    pages = environment(Path(__file__).parent, report, html=True)
    page = pages.get_template("comparison.html.jinja").render(
        protocol=protocol,
        columns=COLUMNS.values(),
        systems=list(dict.fromkeys(entry.recipe.name for entry in entries)),
        rows=rows(entries),
        limit=next((entry.measured.limit for entry in entries if entry.measured), None),
        seeds=sorted({entry.recipe.seed for entry in entries}),
        same=same,
        different=different,
        versions=versions(),
        picture=picture,
    )
    files.write(out / TABLE, csv_file(table(entries)))
    files.write(out / PICTURE, picture)
    files.write(out / PAGE, page.encode())


def table(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the rows of the CSV table, one per run."""
    found = []
    for recipe, measured, failure in entries:
        named = {"recipe": recipe.name, "system": recipe.model, "prior": recipe.posthoc or "own", "seed": recipe.seed}
        figures = measured.figures | {LIMIT: measured.limit} if measured else dict.fromkeys([*COLUMNS, LIMIT])
        found.append({**named, **figures, "failure": failure})
    return found


def rows(entries: Sequence[Entry]) -> list[Row]:
    """Return the rows of the page: the mean over a system's seeds, and its spread if there are several."""
    names = list(dict.fromkeys(entry.recipe.name for entry in entries))
    values = {name: _values([entry for entry in entries if entry.recipe.name == name]) for name in names}
    found = []
    for name in names:
        failure = "; ".join(entry.failure for entry in entries if entry.recipe.name == name and entry.failure)
        cells = [_text(values[name][column]) for column in COLUMNS]
        found.append(Row(name, cells, [_is_best(name, column, values) for column in COLUMNS], failure))
    return found


def _keys(entries: Sequence[Entry]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the keys with one value in all recipes, and the others with their value in each recipe."""
    documents = {entry.recipe.name: flat(entry.recipe) for entry in entries}.values()
    same, different = {}, {}
    for key in dict.fromkeys(key for document in documents for key in document if key not in _NOT_COMPARED):
        values = [_value(document.get(key)) for document in documents]
        if len(set(values)) > 1:
            different[key] = values
        elif values[0]:
            same[key] = values[0]
    return same, different


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def _values(entries: Sequence[Entry]) -> dict[str, list[float]]:
    """Return the figures of one system's runs by column."""
    figures = [entry.measured.figures for entry in entries if entry.measured]
    return {column: [float(value) for f in figures if (value := f[column]) is not None] for column in COLUMNS}


def _is_best(name: str, column: str, values: Mapping[str, Mapping[str, list[float]]]) -> bool:
    means = {other: statistics.fmean(found[column]) for other, found in values.items() if found[column]}
    if name not in means or not COLUMNS[column].best:
        return False
    return means[name] == (min if COLUMNS[column].best == "least" else max)(means.values())


def _text(values: Sequence[float]) -> str:
    if not values:
        return "–"
    text = _figure(statistics.fmean(values))
    return f"{text} ± {_figure(statistics.stdev(values))}" if len(set(values)) > 1 else text


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == math.floor(value) else f"{value:.3g}"


def _picture(entries: Sequence[Entry]) -> bytes:
    """Draw a row of images of the data, and one of each system: samples, and reconstructions of the same images."""
    strips: dict[str, tuple[Pixels, Pixels]] = {}
    for entry in entries:
        if entry.measured:
            images = entry.measured.images
            strips.setdefault("the data", (images["training"], images["held-out"]))
            strips.setdefault(entry.recipe.name, (images["generated"], images["reconstructed"]))
    height = max(len(strips), 1)
    figure = Figure(figsize=(11.0, 0.6 + 0.5 * height), layout="constrained")
    cells = figure.subplots(height, 2, squeeze=False)
    for title, axes in zip(("generated", "reconstructed held-out images"), cells[0], strict=True):
        axes.set_title(title, fontsize=10)
    for (name, pair), row in zip(strips.items(), cells, strict=False):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for pixels, axes in zip(pair, row, strict=True):
            axes.imshow(_strip(pixels), cmap="gray", interpolation="nearest", vmin=0, vmax=255)
    for axes in cells.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return png(figure)


def _strip(images: Pixels) -> Pixels:
    strip = grid(images, len(images))
    return np.asarray(strip[:, :, 0] if strip.ndim == 3 and strip.shape[2] == 1 else strip)
