"""The command `rae-serve study`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

from rich.console import Console

from rae_serve import files
from rae_serve.errors import InvalidInput
from training.distributed import require_one_process
from training.machine import torch_device
from training.progress import resumable
from training.studies.study import RUNS, Study

STUDIES: Final = (
    "priors-2d",
    "bias-variance",
    "nearest-neighbours",
    "mask-trajectory",
    "latent-covariance",
    "capacity",
)


def study(name: str, source: str | None, out: Path, quick: bool, device: str) -> None:
    """Repeat a published figure: train the missing models, and write data, pictures and a page.

    Args:
        name: One of STUDIES.
        source: The data set, as `--data` names it; None means that of the study.
        out: The folder to write. Models that are in it are used again.
        quick: Whether to take minutes instead of an hour, on scikit-learn's digits.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidInput: There is no study of this name, the data set cannot be used, or torchrun has started several
            processes.
        RaeServeError: The folder holds something else than a study, or cannot be written.
    """
    require_one_process("study")
    if name not in STUDIES:
        raise InvalidInput("name", f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    files.check_new_folder(out, mark=RUNS, used="fill")
    module = importlib.import_module(f"training.studies.{name.replace('-', '_')}")
    with resumable():
        module.run(Study(out, source, quick, torch_device(device), Console(stderr=True)))
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir() if path.is_file()))}")
