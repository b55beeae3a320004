"""The command `rae-serve compare`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from rich.console import Console

from rae_serve import files
from rae_serve.errors import InvalidInput, RunError
from rae_serve.files import printable
from training import recipe as recipes
from training.comparison import page
from training.comparison.measure import measure, read, to_bytes
from training.comparison.page import Entry
from training.data.dataset import Dataset, digest
from training.evaluation import held_out
from training.evaluation import subject as subjects
from training.evaluation.features.extractors import Extractor, load_extractor
from training.machine import torch_device
from training.progress import resumable
from training.recipe import Recipe, flat
from training.reuse import finished_run
from training.runs import load_data
from training.trainer import Trainer

RUNS: Final = "runs"  # in the folder of a comparison: the runs that it trained
FIGURES: Final = "figures"  # what was measured of each run
NETWORK_KEYS: Final = ("filters", "hidden")  # what makes networks the same
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
        names: The recipes. The first decides the width of all networks.
        overrides: `key=value` changes of every recipe that has the key.
        source: Where the images are; the first recipe's data set unless given.
        out: The folder to write. Runs that are in it are used again.
        minutes: Time budget of each run; that of its recipe unless given.
        seeds: Runs of each recipe, with the seeds 0, 1, …
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidInput: One of the arguments cannot be used.
        RaeServeError: The folder holds something else than a comparison, or cannot be written.
    """
    if seeds < 1:
        raise InvalidInput("--seeds", f"must be at least 1, not {seeds}")
    chosen = _recipes(names, overrides, minutes)
    where = torch_device(device)
    files.check_new_folder(out, mark=RUNS, used="fill")
    source = source or chosen[0].data
    dataset = _same_images(chosen, source)
    for recipe in chosen:
        Trainer(recipe, dataset, out, where)  # refuses what cannot be trained before the first hour is spent
    extractor = load_extractor("cifar10", where)
    runs = [(recipe, seed) for recipe in chosen for seed in range(seeds)]
    with resumable():
        entries = [_entry(recipe, seed, dataset, source, out, where, extractor) for recipe, seed in runs]
    command = " ".join(
        ["rae-serve compare", *names, *(f"--set {o}" for o in overrides), f"--data {printable(source)}"]
    )
    command += f"{f' --minutes {minutes:g}' if minutes else ''} --seeds {seeds} --out DIR"
    page.write(out, entries, page.Protocol(command, dataset.name, dataset.digest(), extractor.label, minutes))
    print(", ".join(str(printable(out / name)) for name in (page.PAGE, page.TABLE, page.PICTURE)))
    failed = [entry.name for entry in entries if entry.failure]
    if failed:
        print(f"failed: {', '.join(failed)}; the page says why", file=sys.stderr)
        raise SystemExit(1)


def _recipes(names: Sequence[str], overrides: Sequence[str], minutes: float | None) -> list[Recipe]:
    """Return the recipes with the changes that each of them takes, and with the networks of the first."""
    plain = [recipes.load(name) for name in names]
    for name, recipe in zip(names, plain, strict=True):
        if sum(other.name == recipe.name for other in plain) > 1:
            raise InvalidInput("recipe", f"{name} is named twice")
    keys = [override.partition("=")[0].strip() for override in overrides]
    for key in keys:
        if not any(key in flat(recipe) for recipe in plain):
            raise InvalidInput(key, "is no key of any of these recipes")
    budget = [] if minutes is None else [f"minutes={minutes}"]
    found: list[Recipe] = []
    for name, recipe in zip(names, plain, strict=True):
        first = flat(found[0]) if found else flat(recipe)
        networks = [f"{key}={json.dumps(first[key])}" for key in NETWORK_KEYS if key in first and key in flat(recipe)]
        taken = [override for override, key in zip(overrides, keys, strict=True) if key in flat(recipe)]
        found.append(recipes.load(name, [*networks, *budget, *taken]))
    return found


def _same_images(chosen: Sequence[Recipe], source: str) -> Dataset:
    """Load the images. Raise InvalidInput if a recipe makes other images of the data than the first one."""
    loaded: dict[str, Dataset] = {}
    for recipe in chosen:
        key = repr((recipe.data, recipe.preprocessing, recipe.validation))
        loaded[key] = dataset = loaded.get(key) or load_data(recipe, source)
        first = next(iter(loaded.values()))
        if (dataset.preprocessing, dataset.digest()) != (first.preprocessing, first.digest()):
            problem = f"{recipe.name} makes other images of {source} than {chosen[0].name}"
            raise InvalidInput("recipe", f"{problem}; --set height, width, mode, crop or validation alike")
    return next(iter(loaded.values()))


def _entry(
    recipe: Recipe, seed: int, dataset: Dataset, source: str, out: Path, device: torch.device, extractor: Extractor
) -> Entry:
    """Return a run with its figures, or why it has none. A finished run, and figures of it, are used again."""
    name = f"{recipe.name}-{seed}"
    seeded = recipes.check(flat(recipe) | {"seed": seed})
    try:
        run = finished_run(out / RUNS / name, seeded, dataset, source, device, Console(stderr=True))
        images = held_out.load(subjects.of_run(run, device), source)
        stored = out / FIGURES / f"{name}.npz"
        key = f"{run.load()[1].digest} {digest(images.held_out)} {extractor.digest} {COUNT}"
        measured = read(stored, key)
        if measured is None:
            measured = measure(run, images, extractor, COUNT, device)
            stored.parent.mkdir(exist_ok=True)
            files.write(stored, to_bytes(measured, key))
    except RunError as error:
        return Entry(recipe.name, seeded, None, str(error))
    return Entry(recipe.name, seeded, measured)
