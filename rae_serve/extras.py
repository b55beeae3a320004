"""The optional parts of the package, and how a user adds one."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from rae_serve.errors import MissingExtra

Extra = Literal["cli", "client", "server", "train"]


@contextmanager
def needed(extra: Extra) -> Iterator[None]:
    """Import optional packages in this block; raise MissingExtra where one is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("rae_serve", "training"):  # a mistake of ours, not a missing package
            raise
        raise MissingExtra(package, install_command(extra)) from None


def install_command(extra: Extra) -> str:
    """Return the shell command that adds an extra to the running environment.

    The package is named as it was installed: by name from an index, or by the folder or wheel it came from.
    """
    source = distribution("rae-serve").read_text("direct_url.json")
    origin = json.loads(source) if source else {}
    target, options = "rae-serve", ""
    if str(origin.get("url", "")).startswith("file:"):
        target = _shortest(Path(unquote(urlsplit(origin["url"]).path)))
        options = "--editable " if origin.get("dir_info", {}).get("editable") else ""
    python = shlex.quote(_shortest(Path(sys.executable)))
    return f"{python} -m pip install {options}{shlex.quote(f'{target}[{extra}]')}"


def _shortest(path: Path) -> str:
    """Return a path relative to the working directory where it lies inside."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
