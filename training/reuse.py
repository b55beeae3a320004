"""Finished runs for commands that need several: those that are missing are trained, and the others are used again."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from training.data.dataset import Dataset
from training.progress import fit
from training.recipe import Recipe
from training.runs import RECORD, Run, locked
from training.trainer import Interrupted, Trainer


def check_run(path: Path, recipe: Recipe, dataset: Dataset, device: torch.device) -> Trainer:
    """Check that `finished_run` can begin or go on, and return a fresh trainer of the run. Change nothing.

    Args:
        path: The run's folder.
        recipe: The recipe of the run.
        dataset: The images of the run.
        device: Where to train.

    Raises:
        InvalidInput: The recipe cannot be trained on the images, or the folder holds a run of another recipe or of
            other images.
    """
    trainer = Trainer(recipe, dataset, path, device)
    if (path / RECORD).exists():
        Run.open(path).require_same(recipe, dataset)
    return trainer


def finished_run(
    path: Path, recipe: Recipe, dataset: Dataset, source: str, device: torch.device, console: Console
) -> Run:
    """Return the finished run in a folder. Train it first, or continue it, if it is not finished.

    Args:
        path: The run's folder.
        recipe: The recipe of the run.
        dataset: The images of the run.
        source: Where the images are, as `--data` names it.
        device: Where to train.
        console: Where progress is printed.

    Raises:
        InvalidInput: The folder holds a run of another recipe or of other images.
        RunError: Another process trains the run, or the training diverges.
        KeyboardInterrupt: The training was interrupted; its state is saved.
    """
    trainer = check_run(path, recipe, dataset, device)
    run = Run.open(path) if (path / RECORD).exists() else Run.create(path, recipe, dataset, source)
    with locked(path):
        trainer.resume()
        if not trainer.finished:
            console.print(f"training {path.name}")
            try:
                fit(trainer, console)
            except Interrupted:
                raise KeyboardInterrupt from None
    return run
