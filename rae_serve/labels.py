"""Labelled images: class folders, tables of attributes, and what torchvision knows by name."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os.path import splitext
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.preprocessing import Preprocessing, read_picture

MAX_IMAGES: Final = 20_000  # evenly spaced where there are more: means of codes change little beyond
# The folder that torchvision keeps inside the root of each data set.
TORCHVISION_FOLDERS: Final = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "cifar-10-batches-py",
    "celeba": "celeba",
}
_VALUES: Final = {"1": True, "0": False, "-1": False}


@dataclass(frozen=True)
class Labelled:
    """N images of `data`, as files or as uint8 arrays [H, W, C], and which of A attributes each of them has."""

    data: str  # without the folders above it: it goes into bundles, which travel
    images: list[Path] | Pixels
    names: list[str]
    has: npt.NDArray[np.bool_]  # [N, A]

    def thinned(self) -> Labelled:
        """At most MAX_IMAGES of them."""
        rows = np.linspace(0, len(self.has) - 1, min(len(self.has), MAX_IMAGES)).round().astype(int)
        chosen = [self.images[row] for row in rows] if isinstance(self.images, list) else self.images[rows]
        return Labelled(self.data, chosen, self.names, self.has[rows])


def from_folders(folder: Path) -> Labelled:
    """The images of a folder of class folders; every class is an attribute."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = [(path, k) for k, inside in enumerate(classes) for path in _files(inside)]
    if len({k for _, k in files}) < 2:
        problem = f"{folder} has no two folders of images to be told apart; --labels takes a table instead"
        raise InvalidInput("data", problem)
    of_class = np.array([k for _, k in files])
    has = of_class[:, None] == np.arange(len(classes))
    return Labelled(folder.absolute().name, [path for path, _ in files], [path.name for path in classes], has)


def from_table(table: Path, folder: Path) -> Labelled:
    """The images of a folder that a table names: CSV, a file name and then 1 against 0 or −1 in every column.

    CelebA's own `list_attr_celeba.txt` will do: a count, the names, then words between spaces. A table may name more
    images than there are, and with another ending, or none, where no two files differ in that alone.
    Raises InvalidInput, naming the line, for anything else.
    """
    lines = _lines(table)
    names = next(lines, (0, []))[1]
    known = _by_name(folder)
    files, rows = [], []
    for number, (file, *values) in lines:
        if len(values) != len(names):
            problem = f"{table}, line {number}: {len(values)} values for {len(names)} attributes"
            raise InvalidInput("labels", problem)
        wrong = [value for value in values if value not in _VALUES]
        if wrong:
            raise InvalidInput("labels", f"{table}, line {number}: must be 0 or 1 (or -1 or 1), not {wrong[0]!r}")
        path = known.get(file) or known.get(splitext(file)[0])
        if path:
            files.append(path)
            rows.append([_VALUES[value] for value in values])
    if not files or not names:
        raise InvalidInput("labels", f"{table} names no image of {folder}")
    return Labelled(folder.absolute().name, files, names, np.array(rows, dtype=bool))


def pixels(labelled: Labelled, preprocessing: Preprocessing) -> Iterator[tuple[int, Pixels]]:
    """Every image that can be read, with its row, as uint8 [H, W, C]."""
    for row, image in enumerate(labelled.images):
        try:
            picture = read_picture(image.read_bytes()) if isinstance(image, Path) else _picture(image)
        except InvalidInput:
            continue
        yield row, preprocessing(picture)


def read(data: str, table: Path | None, known_as: str, named: Callable[[], Any]) -> Labelled:
    """The labelled images of `data`: a folder, or what `named` (training.attributes) reads by name.

    `known_as` is the data set whose torchvision folder `data` may hold.
    """
    folder = Path(data)
    if folder.is_dir():
        if table is not None:
            return from_table(table, folder)
        if not (folder / TORCHVISION_FOLDERS.get(known_as, " ")).is_dir():
            return from_folders(folder)
    elif table is not None:
        raise InvalidInput("data", f"with --labels it must be a folder of images, not {data!r}")
    found: Labelled = named().labelled(data, known_as)
    return found


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """The line number and cells of every row, the names of the attributes first."""
    try:
        text = table.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("labels", f"{table} cannot be read: {error}") from None
    if text and text[0].strip().isdigit():  # CelebA's
        yield 2, text[1].split() if len(text) > 1 else []
        rows: Iterator[list[str]] = (line.split() for line in text[2:])
        first = 3
    else:
        rows = ([cell.strip() for cell in row] for row in csv.reader(text))
        yield 1, next(rows, [""])[1:]
        first = 2
    yield from ((number, row) for number, row in enumerate(rows, first) if any(row))


def _by_name(folder: Path) -> dict[str, Path]:
    """The files of a folder by name and by path inside it, and by both without their ending if no other has it."""
    whole = {key: path for path in _files(folder) for key in (path.name, path.relative_to(folder).as_posix())}
    bare = [(splitext(key)[0], path) for key, path in whole.items()]
    paths_of = Counter(key for key, _ in set(bare))
    return {key: path for key, path in bare if paths_of[key] == 1} | whole


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
