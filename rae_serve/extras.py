"""Optional dependencies ("extras"): import them, or say how to install what is missing."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from rae_serve.errors import MissingExtra

Extra = Literal["cli", "client", "hub", "ray", "server", "train"]


@contextmanager
def needed(extra: Extra) -> Iterator[None]:
    """Import optional packages inside this block.

    Raises:
        MissingExtra: A package of the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("rae_serve", "training"):  # a wrong import in this repository, not a missing package
            raise
        raise MissingExtra(package, install_command(extra)) from None


def install_command(extra: Extra) -> str:
    """Return the shell command that adds an extra to the running Python environment.

    The command names rae-serve by its source: an index, the folder or wheel that pip installed, or a checkout.
    """
    origin = _origin()
    target, options = "rae-serve", ""
    if str(origin.get("url", "")).startswith("file:"):
        target = _shortest(Path(unquote(urlsplit(origin["url"]).path)))
        options = "--editable " if origin.get("dir_info", {}).get("editable") else ""
    python = shlex.quote(_shortest(Path(sys.executable)))
    return f"{python} -m pip install {options}{shlex.quote(f'{target}[{extra}]')}"


def _origin() -> dict[str, Any]:
    """Return where rae-serve comes from, as pip's own record says it (PEP 610); empty for an index."""
    with suppress(PackageNotFoundError):
        if record := distribution("rae-serve").read_text("direct_url.json"):
            return dict(json.loads(record))
    checkout = Path(__file__).absolute().parents[1]
    # Python prefers a checkout in its working directory to an installed package.
    return {"url": checkout.as_uri()} if (checkout / "pyproject.toml").is_file() else {}


def _shortest(path: Path) -> str:
    """Return a path relative to the working directory if it lies inside, else the path itself.

    A result without a slash would be the name of a package to pip, and of a command to the shell: "./" prevents both.
    """
    relative = os.path.relpath(path)
    if relative.startswith(".."):
        return str(path)
    return relative if relative == "." or os.sep in relative else f".{os.sep}{relative}"
