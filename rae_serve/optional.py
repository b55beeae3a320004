"""What is not installed with the service."""

from __future__ import annotations

import importlib
from typing import Any

from rae_serve.errors import RaeServeError


def training(module: str) -> Any:
    """A module of `training`, which needs torch. Raises RaeServeError that says how to install it."""
    try:
        return importlib.import_module(f"training.{module}")
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "training":
            raise
        raise RaeServeError(
            f"this command needs {error.name}, which is not installed: pip install 'rae-serve[train]'"
        ) from None
