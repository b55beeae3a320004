"""Images with labels: read class folders, tables of attributes, and data sets known by name."""

from __future__ import annotations

import csv
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from os.path import splitext
from pathlib import Path
from typing import Any, Final
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from rae_serve import data_sets, picture_files
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.files import printable
from rae_serve.images import to_picture
from rae_serve.preprocessing import Preprocessing, is_dark

MAX_IMAGES: Final = 20_000  # more images hardly change the means of the latents
_CELL_VALUES: Final = {"1": True, "0": False, "-1": False}
_SEPARATORS: Final = (",", ";", "\t", " ")  # of the cells of a table, in the order in which they are tried


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
    inside = [path for path in picture_files.find(folder) if path.parent != folder]
    class_of = [printable(path.relative_to(folder).parts[0]) for path in inside]
    index = {name: k for k, name in enumerate(dict.fromkeys(class_of))}
    if len(index) < 2:
        problem = f"{folder} has no two folders of images; make one for each class, or give a table with --labels"
        raise InvalidInput("data", problem)
    has = np.array([index[name] for name in class_of])[:, None] == np.arange(len(index))
    return Labelled(printable(folder.absolute().name), inside, list(index), has)


def from_table(table: Path, folder: Path) -> Labelled:
    """Read the images of a folder that a table of attributes lists.

    The table is a CSV file: a header, then one row per image with its file name and, for every attribute, 1 (yes) or
    0 or -1 (no). Commas, semicolons, tabs or spaces separate the cells. CelebA's `list_attr_celeba.txt` works too: a
    count, a line of attribute names, then rows. The table may list images that are not in the folder. It names an
    image by its path, from `folder` or from a folder above it, or by its bare name; with another suffix or without
    one, too. A name that fits several files is an error.

    Args:
        table: The table.
        folder: The folder of images; its subfolders are searched too.

    Raises:
        InvalidInput: The table cannot be read, has a wrong line, or lists no image of the folder; the field is
            `labels`.
    """
    lines = _lines(table)
    find = _Finder(folder, table)
    names = _attribute_names(table, next(lines, (1, [""])), find)
    first = ""
    files: list[Path] = []
    rows = []
    for number, (file, *values) in lines:
        first = first or file
        if len(values) != len(names):
            raise _wrong(table, number, f"{len(values)} values for {len(names)} attributes")
        wrong = [value for value in values if value not in _CELL_VALUES]
        if wrong:
            raise _wrong(table, number, f"must be 0 or 1 (or -1 or 1), not {wrong[0]!r}")
        found = find(file)
        if len(found) > 1:
            these = " and ".join(find.path_of(path) for path in found[:2])
            raise _wrong(table, number, f"{file!r} may be {these}; write the path, with its suffix")
        if found:
            files += found
            rows.append([_CELL_VALUES[value] for value in values])
    if not files:
        these = f"it names {first!r}" if first else "it has no rows"
        those = f"the folder holds {find.example!r}" if find.example else "the folder is empty"
        raise InvalidInput("labels", f"{table} names no image of {folder}: {these}, {those}")
    return Labelled(printable(folder.absolute().name), files, names, np.array(rows, dtype=bool))


def pixels(labelled: Labelled, preprocessing: Preprocessing) -> Iterator[tuple[int, Pixels]]:
    """Yield the row and the preprocessed pixels [H, W, C] of every image; skip unreadable files."""
    dark = 0
    for row, image in enumerate(labelled.images):
        try:
            picture = picture_files.read(image) if isinstance(image, Path) else to_picture(image)
            prepared = preprocessing(picture)
        except InvalidInput:
            continue
        dark += is_dark(picture)
        yield row, prepared
    picture_files.warn_of_dark(dark)


def read(data: str, table: Path | None, known_as: str, training_labels: Callable[[], Any]) -> Labelled:
    """Read labelled images from whatever `--data` and `--labels` name.

    Args:
        data: The name of a data set, a folder that torchvision wrote, a folder of class folders, or a folder of
            images (with a table).
        table: The table of attributes, or None.
        known_as: The name of the data set that a folder written by torchvision is expected to hold.
        training_labels: Imports `training.data.labels`, which reads data sets by name and needs torch.

    Raises:
        InvalidInput: There are no labelled images; the field is `data` or `labels`.
    """
    folder = Path(data)
    if table is not None:
        if not folder.is_dir():
            raise InvalidInput("data", f"with --labels, it must be a folder of images, not {data!r}")
        return from_table(table, folder)
    if folder.is_dir() and data not in data_sets.NAMES and not data_sets.found_in(folder, known_as):
        return from_folders(folder)
    found: Labelled = training_labels().labelled(data, known_as)
    return found


class _Finder:
    """The files of a folder, by the names that a table may give them.

    Attributes:
        example: The path of the first file from the folder, or "".
    """

    def __init__(self, folder: Path, table: Path) -> None:
        self._folder = folder
        self._beside = table.parent.absolute().as_posix()
        # The path of the folder itself, whose last parts a table may write before a file. A link has two paths.
        self._above = {_parts(path.as_posix()) for path in (folder.absolute(), folder.resolve())}
        # "./" marks a path from the folder; other keys are bare names.
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        files = picture_files.find(folder)
        for file in files:
            *_, name = parts = _parts(file.relative_to(folder).as_posix())
            for key in (f"./{'/'.join(parts)}", name):
                self._by_name.setdefault(key, []).append(file)
                self._by_stem.setdefault(splitext(key)[0], []).append(file)
        self.example = self.path_of(files[0]) if files else ""

    def __call__(self, name: str) -> list[Path]:
        """Return the files that a name in a table fits: by the whole name, else by the name without its suffix."""
        keys = list(self._keys(name))
        stems = [splitext(key)[0] for key in keys]
        tries = ((self._by_name, keys), (self._by_stem, keys), (self._by_stem, stems))
        return next((known[key] for known, wanted in tries for key in wanted if key in known), [])

    def path_of(self, file: Path) -> str:
        """Return the path of a file from the folder, as a table may give it."""
        return printable(file.relative_to(self._folder))

    def _keys(self, name: str) -> Iterator[str]:
        for text in dict.fromkeys((name, name.replace("\\", "/"))):
            if text.startswith("../"):  # the only names that depend on where the table is
                text = posixpath.join(self._beside, text)
            parts = _parts(posixpath.normpath(text))
            yield from (f"./{'/'.join(parts)}", "/".join(parts))
            for above in self._above:
                for cut in range(1, min(len(parts), len(above) + 1)):
                    if above[-cut:] == parts[:cut]:
                        yield f"./{'/'.join(parts[cut:])}"


def _parts(path: str) -> tuple[str, ...]:
    """Return the parts of a path in one Unicode form: macOS writes é as two characters, most tables as one."""
    return tuple(normalize("NFC", printable(path)).split("/"))


def _attribute_names(table: Path, header: tuple[int, list[str]], find: _Finder) -> list[str]:
    number, (file, *names) = header
    if not names:
        raise _wrong(table, number, "names no attribute; it must be a header, such as: file,smiling,young")
    if all(name in _CELL_VALUES for name in names) and (splitext(file)[1] or find(file)):
        raise _wrong(table, number, "must be a header that names the attributes, such as: file,smiling,young")
    if "" in names:
        raise _wrong(table, number, f"column {names.index('') + 2} has no name")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise _wrong(table, number, f"two columns are named {twice[0]!r}")
    return names


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of every row that is not empty. The first row is the header."""
    try:
        lines = table.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InvalidInput("labels", f"{table} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput("labels", f"{table} cannot be read: {error}; save it as UTF-8") from None
    if lines[0].strip().isdigit():  # CelebA's format: a count, and a header that does not name the column of files
        lines[:2] = ["", f"file {''.join(lines[1:2])}"]
    rows = _cells(lines, _separator(lines))
    number = 1
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield number, cells
            number = rows.line_num + 1
    except csv.Error as error:
        raise _wrong(table, number, f"{error}; is a quotation mark missing?") from None


def _separator(lines: list[str]) -> str:
    """Return what separates the cells: in the first row, it leaves only values behind the name of the file."""
    header, row = [*filter(str.strip, lines), "", ""][:2]
    for separator in _SEPARATORS:
        with suppress(csv.Error):
            values: list[str] = next(_cells([row], separator), [])[1:]
            if values and all(value.strip() in _CELL_VALUES for value in values):
                return separator
    return next((separator for separator in _SEPARATORS if separator in header), ",")


def _cells(lines: list[str], separator: str) -> Any:
    """Return a reader of the cells of each line; several spaces separate cells as one does."""
    if separator == " ":
        return csv.reader((" ".join(line.split()) for line in lines), delimiter=" ", strict=True)
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)


def _wrong(table: Path, number: int, problem: str) -> InvalidInput:
    return InvalidInput("labels", f"{table}, line {number}: {problem}")
