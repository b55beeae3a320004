"""What the studies share: they train missing models, and write data, pictures and a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from matplotlib.figure import Figure
from rich.console import Console

from rae_serve import files
from rae_serve.arrays import Pixels
from training import recipe as recipes
from training.data.dataset import Dataset, test_images
from training.evaluation.report.pictures import png
from training.recipe import Recipe
from training.reuse import finished_run
from training.runs import Run, load_data
from training.tables import csv_file
from training.templates import environment

RUNS: Final = "runs"  # in the folder of a study: the runs that it trained
_PAGES: Final = environment(Path(__file__).parent, html=False)


@dataclass(frozen=True)
class Study:
    """The settings of one study.

    Attributes:
        out: The folder to write.
        source: The data set, as `--data` names it; None means that of the recipe.
        quick: Whether to take minutes instead of an hour.
        device: Where models train and run.
        console: Where progress is printed.
    """

    out: Path
    source: str | None
    quick: bool
    device: torch.device
    console: Console

    def dataset(self, recipe: Recipe, images: int | None = None) -> Dataset:
        """Load the images of a recipe. `images` limits the training images to the first ones; None takes all."""
        dataset = load_data(recipe, self.source or recipe.data)
        if images is None:
            return dataset
        return replace(dataset, train=dataset.train[:images])

    def test_images(self, recipe: Recipe) -> Pixels:
        """Load the test images of a recipe. Raise InvalidInput, naming `data`, if the data set has none."""
        return test_images(self.source or recipe.data, recipe.data, recipe.preprocessing)

    def trained(self, name: str, recipe: Recipe, dataset: Dataset) -> Run:
        """Return a finished run of this study. Train it first, or continue it, if it is not finished.

        Args:
            name: The name of the run's folder.
            recipe: The recipe of the run.
            dataset: The images of the run.

        Raises:
            InvalidInput: The folder holds a run of another recipe or of other images.
            RunError: Another process trains the run, or the training diverges.
            KeyboardInterrupt: The training was interrupted; its state is saved.
        """
        source = self.source or recipe.data
        return finished_run(self.out / RUNS / name, recipe, dataset, source, self.device, self.console)

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows with equal keys as {name}.csv."""
        self.out.mkdir(parents=True, exist_ok=True)
        files.write(self.out / f"{name}.csv", csv_file(rows))

    def write_figure(self, name: str, figure: Figure) -> None:
        """Write a chart as {name}.png."""
        self.write_png(name, png(figure))

    def write_png(self, name: str, png: bytes) -> None:
        """Write a PNG file as {name}.png."""
        files.write(self.out / f"{name}.png", png)

    def write_page(self, name: str, data: str, **values: Any) -> None:
        """Render the template {name}.md.jinja of this package as {name}.md.

        Args:
            name: The name of the study.
            data: The name of the data set.
            values: Further variables of the template, beside `data`, `quick` and `command`.
        """
        command = f"rae-serve study {name} --data {self.source or data}{' --quick' if self.quick else ''} --out DIR"
        page = _PAGES.get_template(f"{name}.md.jinja").render(values, data=data, quick=self.quick, command=command)
        files.write(self.out / f"{name}.md", page.encode())


def recipe(base: str, overrides: Iterable[tuple[str, Any]]) -> Recipe:
    """Return a recipe of the package with some of its keys changed."""
    return recipes.load(base, [f"{key}={json.dumps(value)}" for key, value in overrides])
