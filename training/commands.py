"""What `rae-serve train` and `rae-serve recipes` do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from rae_serve import files
from training import recipe as recipes
from training.machine import torch_device
from training.progress import fit
from training.runs import Run, check_new, load_data, locked
from training.trainer import Interrupted, Trainer

SKIPPED: Final = "skipped.txt"  # in the run's folder: the files that are no readable images
WORSE: Final = 1.25  # a last held-out error of so many times the least is worth a word


def train(
    recipe_name: str,
    overrides: Sequence[str],
    source: str | None,
    out: Path | None,
    device: str,
    resume: bool,
) -> None:
    """Train a model in a run's folder.

    Args:
        recipe_name: A recipe's name, or a .toml file.
        overrides: `key=value` changes of the recipe.
        source: Where the images are; the recipe's data set unless given.
        out: The run's folder; runs/RECIPE unless given.
        device: "auto", "cpu" or "cuda".
        resume: Whether to go on with the run in that folder.
    """
    recipe = recipes.load(recipe_name, overrides)
    path = out or Path("runs") / recipe.name
    chosen = torch_device(device)
    if resume:
        run = Run.open(path)
        with locked(path):
            dataset = load_data(recipe, source or run.data())
            run.require_same(recipe, dataset)
            trainer = Trainer(recipe, dataset, path, chosen)
            trainer.resume()
            _finish(trainer)
    else:
        check_new(path)
        source = source or recipe.data
        dataset = load_data(recipe, source)
        trainer = Trainer(recipe, dataset, path, chosen)
        Run.create(path, recipe, dataset, source)
        with locked(path):
            _finish(trainer)


def _finish(trainer: Trainer) -> None:
    """Train to the end, and say what is worth a word."""
    path, dataset = trainer.run, trainer.dataset
    if dataset.skipped:
        listing = path / SKIPPED
        files.write(listing, "".join(f"{line}\n" for line in dataset.skipped).encode())
        print(f"skipped {len(dataset.skipped)} files, listed in {listing}: {dataset.skipped[0]}", file=sys.stderr)
    try:
        fit(trainer, Console(stderr=True))
    except Interrupted:
        print(f"stopped at step {trainer.state.step:,} and saved; go on by the same command with --resume")
        raise SystemExit(130) from None
    _print_outcome(trainer)


def _print_outcome(trainer: Trainer) -> None:
    name, state = trainer.run.resolve().name, trainer.state
    print(f"{trainer.run}: {state.step:,} steps; next: rae-serve export {trainer.run} --out exported/{name}")
    if len(trainer.stages) > 1:
        return  # the checkpoint of the least error comes from before the prior's own stage
    if state.least_error and state.latest_error and state.latest_error[1] > WORSE * state.least_error[1]:
        (step, least), (_, latest) = state.least_error, state.latest_error
        print(
            f"the error on held-out images rose from {least:.5f} at step {step:,} to {latest:.5f}; "
            f"rae-serve export --best takes the checkpoint from before"
        )
