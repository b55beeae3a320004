"""Images with labels: read class folders, tables of attributes, and data sets known by name."""

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

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.images import to_picture
from rae_serve.preprocessing import Preprocessing, read_picture

MAX_IMAGES: Final = 20_000  # more images hardly change the means of the latents
# The folder that torchvision keeps inside the root of each data set.
TORCHVISION_FOLDERS: Final = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "cifar-10-batches-py",
    "celeba": "celeba",
}
_CELL_VALUES: Final = {"1": True, "0": False, "-1": False}


@dataclass(frozen=True)
class Labelled:
    """N images, and which of A attributes each image has."""

    data: str  # name of the data set or folder, without the folders above it, because bundles record it
    images: list[Path] | Pixels  # files, or uint8 [N, H, W, C]
    names: list[str]  # names of the A attributes
    has: npt.NDArray[np.bool_]  # [N, A]

    def subsampled(self) -> Labelled:
        """Return at most MAX_IMAGES of the images, evenly spaced."""
        rows = np.linspace(0, len(self.has) - 1, min(len(self.has), MAX_IMAGES)).round().astype(int)
        chosen = [self.images[row] for row in rows] if isinstance(self.images, list) else self.images[rows]
        return Labelled(self.data, chosen, self.names, self.has[rows])


def from_folders(folder: Path) -> Labelled:
    """Read a folder of class folders; every class is an attribute.

    Raises:
        InvalidInput: The folder does not hold at least two folders of images; the field is `data`.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = [(path, k) for k, inside in enumerate(classes) for path in _files(inside)]
    if len({k for _, k in files}) < 2:
        problem = f"{folder} has no two folders of images; make one for each class, or give a table with --labels"
        raise InvalidInput("data", problem)
    of_class = np.array([k for _, k in files])
    has = of_class[:, None] == np.arange(len(classes))
    return Labelled(folder.absolute().name, [path for path, _ in files], [path.name for path in classes], has)


def from_table(table: Path, folder: Path) -> Labelled:
    """Read the images of a folder that a table of attributes lists.

    The table is a CSV file: a header, then one row per image with its file name and, for every attribute, 1 (yes) or
    0 or -1 (no). CelebA's `list_attr_celeba.txt` works too: a count, a line of attribute names, then rows whose cells
    are separated by spaces. The table may list images that are not in the folder. It may name an image with another
    suffix or without one, unless two files differ in their suffix only.

    Args:
        table: The table.
        folder: The folder of images; its subfolders are searched too.

    Raises:
        InvalidInput: The table cannot be read, has a wrong line, or lists no image of the folder; the field is
            `labels`.
    """
    lines = _lines(table)
    names = next(lines, (0, []))[1]
    known = _by_name(folder)
    files, rows = [], []
    for number, (file, *values) in lines:
        if len(values) != len(names):
            problem = f"{table}, line {number}: {len(values)} values for {len(names)} attributes"
            raise InvalidInput("labels", problem)
        wrong = [value for value in values if value not in _CELL_VALUES]
        if wrong:
            raise InvalidInput("labels", f"{table}, line {number}: must be 0 or 1 (or -1 or 1), not {wrong[0]!r}")
        path = known.get(file) or known.get(splitext(file)[0])
        if path:
            files.append(path)
            rows.append([_CELL_VALUES[value] for value in values])
    if not files or not names:
        raise InvalidInput("labels", f"{table} names no image of {folder}; its first column must hold file names")
    return Labelled(folder.absolute().name, files, names, np.array(rows, dtype=bool))


def pixels(labelled: Labelled, preprocessing: Preprocessing) -> Iterator[tuple[int, Pixels]]:
    """Yield the row and the preprocessed pixels [H, W, C] of every image; skip unreadable files."""
    for row, image in enumerate(labelled.images):
        try:
            picture = read_picture(image.read_bytes()) if isinstance(image, Path) else to_picture(image)
        except InvalidInput:
            continue
        yield row, preprocessing(picture)


def read(data: str, table: Path | None, known_as: str, training_labels: Callable[[], Any]) -> Labelled:
    """Read labelled images from whatever `--data` and `--labels` name.

    Args:
        data: A folder of class folders, a folder of images (with a table), a folder that torchvision wrote, or the
            name of a data set.
        table: The table of attributes, or None.
        known_as: The name of the data set that a folder written by torchvision is expected to hold.
        training_labels: Imports `training.data.labels`, which reads data sets by name and needs torch.

    Raises:
        InvalidInput: There are no labelled images; the field is `data` or `labels`.
    """
    folder = Path(data)
    if folder.is_dir():
        if table is not None:
            return from_table(table, folder)
        if not (folder / TORCHVISION_FOLDERS.get(known_as, " ")).is_dir():
            return from_folders(folder)
    elif table is not None:
        raise InvalidInput("data", f"with --labels, it must be a folder of images, not {data!r}")
    found: Labelled = training_labels().labelled(data, known_as)
    return found


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and cells of every row that is not empty; first the names of the attributes."""
    try:
        text = table.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("labels", f"{table} cannot be read: {error}") from None
    if text and text[0].strip().isdigit():  # CelebA's format, which begins with a count
        yield 2, text[1].split() if len(text) > 1 else []
        rows: Iterator[list[str]] = (line.split() for line in text[2:])
        first = 3
    else:
        rows = ([cell.strip() for cell in row] for row in csv.reader(text))
        yield 1, next(rows, [""])[1:]
        first = 2
    yield from ((number, row) for number, row in enumerate(rows, first) if any(row))


def _by_name(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by name, by relative path, and by both without suffix unless that is ambiguous."""
    full = {key: path for path in _files(folder) for key in (path.name, path.relative_to(folder).as_posix())}
    stems = [(splitext(key)[0], path) for key, path in full.items()]
    paths_per_stem = Counter(stem for stem, _ in set(stems))
    return {stem: path for stem, path in stems if paths_per_stem[stem] == 1} | full


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
