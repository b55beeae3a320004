"""What the studies share: runs that are trained where they are missing, and results that are kept."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console

from rae_serve import files
from rae_serve.arrays import Pixels
from training import recipe as recipes
from training.data import dataset as data
from training.data.dataset import Dataset
from training.progress import fit
from training.recipe import Recipe
from training.runs import RECORD, Run, load_data
from training.trainer import Interrupted, Trainer


@dataclass(frozen=True)
class Study:
    """Where a study writes, from what images, how thoroughly, and where it tells how it goes."""

    out: Path
    source: str | None
    quick: bool
    device: torch.device
    console: Console

    def dataset(self, recipe: Recipe, images: int | None = None) -> Dataset:
        """The images of a recipe, from the study's source; only the first `images` of the training part."""
        dataset = load_data(recipe, self.source or recipe.data)
        if images is None:
            return dataset
        return Dataset(
            dataset.name, dataset.images, dataset.train[:images], dataset.validation, dataset.preprocessing
        )

    def test(self, recipe: Recipe) -> Pixels:
        """The test images, as a recipe prepares them. Raises InvalidInput, naming `data`, where there are none."""
        return data.test_images(self.source or recipe.data, recipe.data, recipe.preprocessing)

    def trained(self, name: str, recipe: Recipe, dataset: Dataset) -> Run:
        """The run `name` of this study: as it is where it is done, gone on with where it is not.

        Raises InvalidInput where it is there with another recipe or other images, and KeyboardInterrupt, after
        saving, where it is interrupted.
        """
        path = self.out / "runs" / name
        trainer = Trainer(recipe, dataset, path, self.device)
        if (path / RECORD).exists():
            run = Run.open(path)
            run.require_same(recipe, dataset)
            trainer.resume()
        else:
            run = Run.create(path, recipe, dataset, self.source or recipe.data)
        if not trainer.finished:
            self.console.print(f"training {name}")
            try:
                fit(trainer, self.console)
            except Interrupted:
                raise KeyboardInterrupt from None
        return run

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows of one set of columns as {name}.csv and {name}.json."""
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        self.out.mkdir(parents=True, exist_ok=True)
        files.write(self.out / f"{name}.csv", text.getvalue().encode())
        files.write(self.out / f"{name}.json", (json.dumps(list(rows), indent=1) + "\n").encode())

    def write_figure(self, name: str, figure: Figure) -> None:
        """Write {name}.png."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        self.write_png(name, buffer.getvalue())

    def write_png(self, name: str, png: bytes) -> None:
        """Write {name}.png."""
        files.write(self.out / f"{name}.png", png)

    def write_text(self, name: str, text: str) -> None:
        """Write a page."""
        files.write(self.out / name, text.encode())


def recipe(base: str, overrides: Iterable[tuple[str, Any]]) -> Recipe:
    """A recipe of the package with some of its keys changed."""
    return recipes.load(base, [f"{key}={json.dumps(value)}" for key, value in overrides])
