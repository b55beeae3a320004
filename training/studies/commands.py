"""What `rae-serve study` does."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

from rich.console import Console

from rae_serve.errors import InvalidInput
from training.machine import torch_device
from training.progress import resumable
from training.studies.study import Study

STUDIES: Final = (
    "priors-2d",
    "bias-variance",
    "nearest-neighbours",
    "mask-trajectory",
    "latent-covariance",
    "capacity",
)


def study(name: str, source: str | None, out: Path, quick: bool, device: str) -> None:
    """Do the study `name` in the folder `out`, training what is not there yet."""
    if name not in STUDIES:
        raise InvalidInput("name", f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    module = importlib.import_module(f"training.studies.{name.replace('-', '_')}")
    with resumable():
        module.run(Study(out, source, quick, torch_device(device), Console(stderr=True)))
    print(f"{out}: {', '.join(sorted(path.name for path in out.iterdir() if path.is_file()))}")
