"""The command `rae-serve train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from rae_serve.files import printable
from training import recipe as recipes
from training.machine import torch_device
from training.progress import fit
from training.runs import SKIPPED, Run, check_new, load_data, locked
from training.trainer import Interrupted, Trainer

WORSE: Final = 1.25  # from this multiple of the least held-out error on, the user is told


def train(
    recipe_name: str,
    overrides: Sequence[str],
    source: str | None,
    out: Path | None,
    device: str,
    resume: bool,
) -> None:
    """Train a model: start a run in a new folder, or continue the run of a folder.

    Args:
        recipe_name: A recipe's name, or a .toml file.
        overrides: `key=value` changes of the recipe.
        source: Where the images are; the recipe's data set unless given.
        out: The run's folder; runs/RECIPE unless given.
        device: "auto", "cpu" or "cuda".
        resume: Whether to continue the run in that folder.
    """
    recipe = recipes.load(recipe_name, overrides)
    path = out or Path("runs") / recipe.name
    chosen = torch_device(device)
    if resume:
        run = Run.open(path)
        with locked(path):
            dataset = load_data(recipe, source or run.image_source())
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
        listing = printable(path / SKIPPED)
        print(f"skipped {len(dataset.skipped)} files, listed in {listing}: {dataset.skipped[0]}", file=sys.stderr)
    try:
        fit(trainer, Console(stderr=True))
    except Interrupted:
        print(f"stopped at step {trainer.state.step:,} and saved; continue by the same command with --resume")
        raise SystemExit(130) from None
    _print_outcome(trainer)


def _print_outcome(trainer: Trainer) -> None:
    run, name, state = printable(trainer.run), printable(trainer.run.resolve().name), trainer.state
    print(f"{run}: {state.step:,} steps; next: rae-serve export {run} --out exported/{name}")
    if len(trainer.stages) > 1:
        return  # the checkpoint of the least error comes from before the prior's own stage
    if state.least_error and state.latest_error and state.latest_error[1] > WORSE * state.least_error[1]:
        (step, least), (_, latest) = state.least_error, state.latest_error
        print(
            f"the error on held-out images rose from {least:.5f} at step {step:,} to {latest:.5f}; "
            f"rae-serve export --best takes the checkpoint from before"
        )
