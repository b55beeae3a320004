"""Picture files on disk: find them in a folder, and open them with one limit on their size."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image

from rae_serve.errors import InvalidInput
from rae_serve.preprocessing import open_picture, read_picture, upright_size

log: Final = logging.getLogger(__name__)


class Header(NamedTuple):
    """The facts of a picture that its header states."""

    width: int
    height: int
    grey: bool


def find(folder: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, sorted by their paths.

    Links to files and folders are followed, except for a link to a folder above it, which would never end. Hidden
    files and hidden folders are left out. What cannot be read, such as a broken link, is returned like a file, so
    that whoever opens it reports it.

    Raises:
        InvalidInput: `folder` itself cannot be read; the field is `data`.
    """
    return sorted(_walk(folder, frozenset()), key=lambda path: path.parts)


def read(path: Path, field: str = "image") -> Image.Image:
    """Decode a picture file.

    Raises:
        InvalidInput: The file cannot be read, or is not a whole picture; the error names `field`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(field, f"cannot be read: {error.strerror}") from None
    return read_picture(data, field)


def read_header(path: Path) -> Header:
    """Read the header of a picture file, without decoding its pixels. The width and height are the upright ones.

    Raises:
        InvalidInput: The file cannot be read, or its header is not that of a picture.
    """
    try:
        with path.open("rb") as file:
            picture = open_picture(file)
            return Header(*upright_size(picture), Image.getmodebase(picture.mode) == "L")
    except OSError as error:
        raise InvalidInput("image", f"cannot be read: {error.strerror}") from None


def warn_of_dark(count: int) -> None:
    """Warn, unless `count` is 0, that so many 16-bit pictures are dark because they may hold fewer bits."""
    if count:
        log.warning(
            "%s of 16 bits %s no value above a quarter of the range, and so will be nearly black; "
            "if the values have 12 bits, multiply them by 16 first (10 bits: by 64, 14 bits: by 4)",
            "1 picture" if count == 1 else f"{count:,} pictures",
            "has" if count == 1 else "have",
        )


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Yield the files in a folder. `above` holds the device and inode of every folder on the way to it."""
    try:
        facts = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        if not above:
            raise InvalidInput("data", f"{folder} cannot be read: {error.strerror}") from None
        yield folder
        return
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            continue
        # os.path and not pathlib, whose functions raise where a link leads to a forbidden place.
        if os.path.isdir(path):
            yield from _walk(path, above | {here})
        elif os.path.isfile(path) or not os.path.exists(path):
            yield path  # but no device or pipe, whose reading may never end
