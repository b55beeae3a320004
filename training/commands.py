"""What `rae-serve train` does: set a run up, show how it goes, stop it well."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rae_serve import files
from training import recipe as recipes
from training.machine import torch_device
from training.progress import fit
from training.runs import Run, load_data
from training.trainer import Interrupted, Trainer

SKIPPED = "skipped.txt"  # in the run's folder: the files that are no images
WORSE = 1.25  # times the least held-out error, at the end, is worth a word


def train(
    recipe_name: str,
    overrides: Sequence[str],
    source: str | None,
    out: Path | None,
    device: str,
    resume: bool,
) -> None:
    """Train by a recipe in the folder `out`, or go on where it stopped."""
    recipe = recipes.load(recipe_name, overrides)
    path = out or Path("runs") / recipe.name
    chosen = torch_device(device)
    started = Run.open(path) if resume else None
    source = source or (started.source if started else recipe.data)
    dataset = load_data(recipe, source)
    if started:
        started.require_same(recipe, dataset)
    trainer = Trainer(recipe, dataset, path, chosen)
    if started:
        trainer.resume()
    else:
        Run.create(path, recipe, dataset, source)
    console = Console(stderr=True)
    if dataset.skipped:
        listing = path / SKIPPED
        files.write(listing, "".join(f"{line}\n" for line in dataset.skipped).encode())
        print(f"skipped {len(dataset.skipped)} files, listed in {listing}: {dataset.skipped[0]}", file=sys.stderr)
    try:
        fit(trainer, console)
    except Interrupted:
        print(f"stopped at step {trainer.step:,} and saved; go on by the same command with --resume")
        raise SystemExit(130) from None
    _tell(trainer)


def _tell(trainer: Trainer) -> None:
    name = trainer.run.resolve().name
    print(f"{trainer.run}: {trainer.step:,} steps; next: rae-serve export {trainer.run} --out exported/{name}")
    if len(trainer.stages) > 1:
        return  # the checkpoint of the least error has none of the prior's further steps
    if trainer.least_error and trainer.latest_error and trainer.latest_error[1] > WORSE * trainer.least_error[1]:
        (step, least), (_, latest) = trainer.least_error, trainer.latest_error
        print(
            f"the error on held-out images rose from {least:.5f} at step {step:,} to {latest:.5f}; "
            f"rae-serve export --best takes the checkpoint from before"
        )
