"""The command `rae-serve compare`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console

from rae_serve import files
from rae_serve.errors import InvalidInput, RaeServeError
from rae_serve.files import printable
from rae_serve.preprocessing import Preprocessing
from training import recipe as recipes
from training.comparison import page
from training.comparison.measure import measure, read, to_bytes
from training.comparison.page import Entry
from training.data.dataset import Dataset, digest
from training.distributed import require_one_process
from training.evaluation import held_out
from training.evaluation.features.extractors import Extractor, load_extractor
from training.evaluation.figures import MIN_IMAGES
from training.evaluation.held_out import Images
from training.machine import torch_device
from training.progress import progress_bars, resumable
from training.recipe import Recipe, flat
from training.reuse import check_run, finished_run
from training.runs import load_data

RUNS: Final = "runs"  # in the folder of a comparison: the runs that it trained
FIGURES: Final = "figures"  # what was measured of each run
# What all runs share: the images, how they are split, and the width of the networks.
SHARED: Final = ("data", *Preprocessing.model_fields, "validation", "horizontal_flip", "seed", "filters", "hidden")
COUNT: Final = 10_000  # the most images of each kind


def compare(
    names: Sequence[str],
    overrides: Sequence[str],
    source: str | None,
    out: Path,
    minutes: float | None,
    seeds: int,
    device: str,
) -> None:
    """Train several systems on the same images under one budget; write a table, a picture and a page.

    Args:
        names: The recipes. The first decides the preparation of the images and the width of all networks.
        overrides: `key=value` changes of every recipe that has the key.
        source: Where the images are; the first recipe's data set unless given.
        out: The folder to write. Runs that are in it are used again.
        minutes: Time budget of each run; that of its recipe unless given.
        seeds: Runs of each recipe, with its seed and the next ones.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidInput: One of the arguments cannot be used, or torchrun has started several processes.
        RaeServeError: The folder holds something else than a comparison, or cannot be written.
    """
    require_one_process("compare")
    if seeds < 1:
        raise InvalidInput("--seeds", f"must be at least 1, not {seeds}")
    chosen = _recipes(names, overrides, source, minutes)
    where = torch_device(device)
    files.check_new_folder(out, mark=RUNS, used="fill")
    source = source or chosen[0].data
    dataset = load_data(chosen[0], source)
    images = _images(chosen[0], dataset, source)
    comparison = Comparison(out, source, dataset, images, where, load_extractor("cifar10", where))
    runs = [recipes.check(flat(recipe) | {"seed": recipe.seed + i}) for recipe in chosen for i in range(seeds)]
    for recipe in runs:
        check_run(comparison.folder(recipe), recipe, dataset, where)  # before the first hour is spent
    with resumable():
        entries = [comparison.entry(recipe) for recipe in runs]
    options = [f"--data={printable(source)}", f"--seeds={seeds}", *(f"--set={override}" for override in overrides)]
    options += [f"--minutes={minutes:g}"] if minutes else []
    protocol = page.Protocol(
        command=shlex.join(["rae-serve", "compare", *names, *options, "--out=DIR"]),
        data=dataset.name,
        digest=dataset.digest(),
        training=len(dataset.train),
        held_out=len(images.held_out),
        split=images.split,
        label=comparison.extractor.label,
        minutes=minutes,
    )
    page.write(out, entries, protocol)
    print(", ".join(str(printable(out / name)) for name in (page.PAGE, page.TABLE, page.PICTURE)))
    failed = [comparison.folder(entry.recipe).name for entry in entries if entry.failure]
    if failed:
        print(f"failed: {', '.join(failed)}; the page says why", file=sys.stderr)
        raise SystemExit(1)


@dataclass(frozen=True)
class Comparison:
    """What all runs of a comparison share.

    Attributes:
        out: The folder of the comparison.
        source: The data set, as `--data` names it.
        dataset: The images that the runs train on.
        images: The same images, and those to compare with.
        device: Where models train and run.
        extractor: The network whose features are compared.
    """

    out: Path
    source: str
    dataset: Dataset
    images: Images
    device: torch.device
    extractor: Extractor

    def folder(self, recipe: Recipe) -> Path:
        """Return the folder of a run."""
        return self.out / RUNS / f"{recipe.name}-{recipe.seed}"

    def entry(self, recipe: Recipe) -> Entry:
        """Return a run with its figures, or why it has none. A finished run, and figures of it, are used again."""
        folder, console = self.folder(recipe), Console(stderr=True)
        try:
            run = finished_run(folder, recipe, self.dataset, self.source, self.device, console)
            stored = self.out / FIGURES / f"{folder.name}.npz"
            key = f"{run.load()[1].digest} {digest(self.images.held_out)} {self.extractor.digest} {COUNT}"
            measured = read(stored, key)
            if measured is None:
                console.print(f"measuring {folder.name}")
                with progress_bars() as report:
                    measured = measure(run, self.images, self.extractor, COUNT, self.device, report)
                stored.parent.mkdir(exist_ok=True)
                files.write(stored, to_bytes(measured, key))
        except RaeServeError as error:
            return Entry(recipe, None, str(error))
        except Exception as error:  # whatever ends one run, the others go on
            return Entry(recipe, None, f"{type(error).__name__}: {' '.join(str(error).split())}")
        return Entry(recipe, measured)


def _recipes(
    names: Sequence[str], overrides: Sequence[str], source: str | None, minutes: float | None
) -> list[Recipe]:
    """Return the recipes with the changes that each of them takes, and with what all of them share.

    The shared keys have the values of the first recipe, or of the first that has the key.
    """
    found = [_changed(name, overrides) for name in names]
    for name, recipe in zip(names, found, strict=True):
        if sum(other.name == recipe.name for other in found) > 1:
            raise InvalidInput("recipe", f"{name} is named twice")
    for key in map(_key, overrides):
        if not any(key in flat(recipe) for recipe in found):
            raise InvalidInput(key, "is no key of any of these recipes")
    data = list(dict.fromkeys(recipe.data for recipe in found))
    if source is None and len(data) > 1:
        raise InvalidInput("--data", f"must be given: the recipes are for {' and '.join(data)}")
    shared: dict[str, Any] = {} if minutes is None else {"minutes": minutes}
    for recipe in reversed(found):
        shared |= {key: value for key, value in flat(recipe).items() if key in SHARED}
    taken = [{key: value for key, value in shared.items() if key in flat(recipe)} for recipe in found]
    return [recipes.check(flat(recipe) | keys) for recipe, keys in zip(found, taken, strict=True)]


def _changed(name: str, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with those of the changes whose key it has. A posthoc prior brings its own keys."""
    taken: list[str] = []
    recipe = recipes.load(name)
    for override in overrides:
        if _key(override) in flat(recipe):
            taken.append(override)
            recipe = recipes.load(name, taken)
    return recipe


def _key(override: str) -> str:
    key, equals, _ = override.partition("=")
    if not equals:
        raise InvalidInput("--set", f"wants key=value, not {override!r}")
    return key.strip()


def _images(recipe: Recipe, dataset: Dataset, source: str) -> Images:
    """Return the images to compare with. Raise InvalidInput if there are too few."""
    images = held_out.of_dataset(dataset, recipe, source)
    for part, what in ((images.held_out, "held out of"), (images.train, "for training in")):
        if len(part) < MIN_IMAGES:
            problem = f"{len(part)} images are {what} {images.source}; a comparison needs at least {MIN_IMAGES}"
            raise InvalidInput("data", problem)
    return images
