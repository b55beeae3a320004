"""The command `rae-serve quickstart`: from a folder of pictures to a model that can be served."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from rae_serve.errors import InvalidInput
from rae_serve.files import printable
from training import commands
from training.data.dataset import Dataset
from training.distributed import require_one_process
from training.evaluation import commands as evaluation
from training.evaluation.figures import MIN_IMAGES
from training.export.bundle import export
from training.runs import RECORD, Run
from training.survey import Survey, describe, survey

RECIPE: Final = "rae-folder"
# Fewer pictures give better images with smaller batches, fewer dimensions and no discriminator: benchmarks/README.md.
FEWEST_FOR_RECIPE: Final = 1_000
FOR_FEW: Final = ("batch_size=16", "lr=3e-3", "latent_dim=32", "adversarial=0")


def quickstart(folder: str, minutes: float, name: str | None, device: str) -> None:
    """Look at pictures, train, export and evaluate. The same command after a stop goes on where it stopped.

    Args:
        folder: The folder of pictures.
        minutes: The time to train.
        name: The name of the model; that of the folder unless given.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidInput: There is no such folder, it holds too few pictures, or torchrun has started several processes.
    """
    require_one_process("quickstart")
    if not Path(folder).is_dir():
        raise InvalidInput("FOLDER", f"there is no folder {folder}")
    source = os.path.join(os.curdir, folder)  # a folder also if a data set has the same name
    chosen = name or printable(Path(folder).resolve().name)
    path, bundle, results = (Path(place) / chosen for place in ("runs", "exported", "evaluations"))
    held_out = 0

    def choose(dataset: Dataset) -> list[str]:
        nonlocal held_out
        held_out = len(dataset.validation)
        found = survey(dataset)
        for sentence in describe(found):
            print(sentence, flush=True)
        return changes_for(found)

    changes, begun = [f"name={chosen}", f"minutes={minutes}"], (path / RECORD).exists()
    commands.train(RECIPE, changes, source, path, device, resume=begun, choose=choose)
    export(Run.open(path), bundle, overwrite=True)
    if held_out < MIN_IMAGES:
        print(f"{held_out} pictures are held out, too few to judge the model by; look at {path / 'samples'}")
    else:
        evaluation.evaluate(bundle, source, None, results, 10_000, 0, "cifar10", None, device, "verdict")
    print(f"{bundle} is ready: rae-serve serve {bundle}, then open http://127.0.0.1:3000")


def changes_for(found: Survey) -> list[str]:
    """Return the changes of the recipe, as `key=value`, that suit a collection of pictures."""
    changes = [f"horizontal_flip={str(found.mirrored).lower()}"]
    return changes + list(FOR_FEW) if found.images < FEWEST_FOR_RECIPE else changes
