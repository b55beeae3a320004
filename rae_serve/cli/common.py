"""Parts that several commands share: arguments, options, number parsing, and the import of `training`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from PIL import Image
from rich.console import Console

from rae_serve import extras
from rae_serve.cli.interrupts import ending_at_once
from rae_serve.errors import InvalidInput
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


def output(text: str) -> Path:
    """Parse the name of a file or folder to write."""
    if text in ("", "-"):
        raise typer.BadParameter(f"must name a file or folder, not {text!r}; nothing can be written to stdout")
    return Path(text)


# Options that hold numbers. Typer's own parsers do not print the wrong value as this project does.
INTEGER: dict[str, Any] = {"parser": _parser(int, "an integer"), "metavar": "N"}
NUMBER: dict[str, Any] = {"parser": _parser(float, "a number"), "metavar": "X"}
# Help of options that several commands have.
SEED: Final = "Seed of the noise. Each row of a seed is always the same image."
TEMPERATURE: Final = "Factor on the noise, from 0 to 10. Lower values give more typical images."
# Options that name the file or folder to write.
OUTPUT: dict[str, Any] = {"parser": output, "metavar": "PATH"}
# The suffixes that make a name the name of a file. Any other name, such as v1.5, may be that of a folder.
_FILE_SUFFIXES: Final = {".csv", ".json", ".npy", ".npz", ".txt", ".zip"}  # and those of all pictures
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to run. auto: CUDA if it can be used, else the CPU.")]


def output_format(out: Path, suffixes: Sequence[str], *, folder: bool = False) -> str:
    """Return the suffix of an output in lower case, or "" for a folder.

    Args:
        out: The file or folder to write.
        suffixes: The suffixes of files that the command writes.
        folder: Whether the command writes folders too.

    Raises:
        InvalidInput: The suffix is none of `suffixes`, and the name is not that of a folder.
    """
    suffix = out.suffix.lower()
    if folder and (out.is_dir() or suffix not in _FILE_SUFFIXES | Image.registered_extensions().keys()):
        return ""
    if suffix not in suffixes:
        other = ", or be the name of a folder" if folder else ""
        raise InvalidInput("--out", f"must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}{other}, not {out}")
    return suffix


def print_parity(measured: Parity) -> None:
    """Print how far the graphs are from their torch originals."""
    typer.echo(
        f"differences from torch: prior {measured.prior:.1e}, encoder {measured.encoder:.1e} (relative), "
        f"decoder {measured.decoder_grey_levels} grey levels"
    )


def import_training(module: str, extra: extras.Extra = "train") -> Any:
    """Import a module of `training`, which needs the extra `train` unless another one is named.

    Raises:
        MissingExtra: A package of the extra is not installed.
    """
    with extras.needed(extra), ending_at_once():
        return importlib.import_module(f"training.{module}")
