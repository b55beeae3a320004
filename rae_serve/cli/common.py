"""What the commands share: arguments and options, numbers on the command line, and modules that need torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import typer
from rich.console import Console

from rae_serve import extras
from rae_serve.manifest import Parity

console: Final = Console()
Number = TypeVar("Number")


def integer(text: str) -> int:
    return _parsed(int, text, "an integer")


def number(text: str) -> float:
    return _parsed(float, text, "a number")


def _parsed(kind: Callable[[str], Number], text: str, wanted: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter(f"must be {wanted}, not {text!r}") from None


INTEGER: dict[str, Any] = {"parser": integer, "metavar": "N"}


NUMBER: dict[str, Any] = {"parser": number, "metavar": "X"}


DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")]


BundleArgument = Annotated[Path, typer.Argument(help="A bundle's folder.", show_default=False)]


def print_parity(measured: Parity) -> None:
    typer.echo(
        f"against torch: prior {measured.prior:.1e}, encoder {measured.encoder:.1e} (relative), "
        f"decoder {measured.decoder_grey_levels} grey levels"
    )


def training(module: str) -> Any:
    """Import a module of `training`, which needs torch.

    Raises MissingExtra, which says how to install what is missing.
    """
    with extras.needed("train"):
        return importlib.import_module(f"training.{module}")
