"""Parts that several commands share: arguments, options, number parsing, and the import of `training`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.console import Console

from rae_serve import extras
from rae_serve.manifest import Parity
from rae_serve.sessions import Device

console: Final = Console()
Number = TypeVar("Number")


def _parser(kind: Callable[[str], Number], wanted: str) -> Callable[[str], Number]:
    def parse(text: str) -> Number:
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"must be {wanted}, not {text!r}") from None

    return parse


# Options that hold numbers. Typer's own parsers do not print the wrong value as this project does.
INTEGER: dict[str, Any] = {"parser": _parser(int, "an integer"), "metavar": "N"}
NUMBER: dict[str, Any] = {"parser": _parser(float, "a number"), "metavar": "X"}
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to run. auto: CUDA if it can be used, else the CPU.")]


def print_parity(measured: Parity) -> None:
    """Print how far the graphs are from their torch originals."""
    typer.echo(
        f"differences from torch: prior {measured.prior:.1e}, encoder {measured.encoder:.1e} (relative), "
        f"decoder {measured.decoder_grey_levels} grey levels"
    )


def import_training(module: str) -> Any:
    """Import a module of `training`, which needs the extra `train`.

    Raises:
        MissingExtra: A package of the extra is not installed.
    """
    with extras.needed("train"):
        return importlib.import_module(f"training.{module}")
