"""Shards: files with the images of a range of rows. Beside each shard is a record of what it holds.

`docs/generate.md` specifies the names and the contents.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Final, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from rae_serve import arrays, files, images
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput, RaeServeError
from rae_serve.manifest import Sha256

Format = Literal["png", "webp", "npz"]

ROWS_PER_SHARD: Final = 10_000
LIST: Final = "generate.json"
_NAME: Final = re.compile(r"(\d+-(\d{16})-(\d{16})\.(?:tar|npz))(?:\.json)?")  # of a shard, or of its record
# The header of a file in a tar file, without a name, time and owner: its size is at byte 124, its checksum at 148.
# _SUM is the checksum without what the name and the size add to it.
_HEADER: Final = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_SUM: Final = sum(_HEADER[:124] + _HEADER[136:148] + b" " * 8 + _HEADER[156:])


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Series(_Document):
    """What all shards of a folder have in common. `digest` is the model's, as in the bundle's manifest."""

    digest: Sha256
    seed: int
    temperature: float
    format: Format


class Shard(_Document):
    """One file of images: the rows rows[0] … rows[1] − 1 of a seed."""

    name: str
    rows: tuple[int, int]
    bytes: int
    sha256: Sha256


class Record(Series):
    """The content of the file beside a shard."""

    shard: Shard


class ShardList(Series):
    """The content of `generate.json`: every shard of a range of rows."""

    model: str
    rows: tuple[int, int]
    rows_per_shard: int
    shards: list[Shard]


@dataclass(frozen=True)
class Plan:
    """How a range of rows is cut into shards, which are numbered from 0.

    Args:
        series: What the shards have in common.
        rows: The rows of all shards.
        rows_per_shard: Rows of each shard; the last may have fewer.

    Raises:
        InvalidInput: `rows` or `rows_per_shard` is outside of its range.
    """

    series: Series
    rows: range
    rows_per_shard: int

    def __post_init__(self) -> None:
        arrays.integer("rows-per-shard", self.rows_per_shard, least=1)
        check_rows(self.rows)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.rows_per_shard)

    def rows_of(self, index: int) -> range:
        """Return the rows of a shard."""
        return self.rows[index * self.rows_per_shard :][: self.rows_per_shard]

    def count(self, indices: range) -> int:
        """Return how many rows some shards have together."""
        missing = len(self) * self.rows_per_shard - len(self.rows)  # of the last shard
        return len(indices) * self.rows_per_shard - missing * (len(self) - 1 in indices)

    def name(self, index: int) -> str:
        """Return the file name of a shard."""
        rows = self.rows_of(index)
        suffix = "npz" if self.series.format == "npz" else "tar"
        return f"{self.series.seed}-{rows.start:016d}-{rows.stop:016d}.{suffix}"

    def index(self, name: str) -> int | None:
        """Return the number of the shard of which this is the file name, or the record's; None if there is none."""
        found = _NAME.fullmatch(name)
        if not found:
            return None
        index = (int(found[2]) - self.rows.start) // self.rows_per_shard
        return index if 0 <= index < len(self) and self.name(index) == found[1] else None


def check_rows(rows: range) -> None:
    """Raise InvalidInput unless these are rows, at least one, in ascending order and without gaps."""
    limit = arrays.MAX_INTEGER + 1
    if rows.step != 1 or not 0 <= rows.start < rows.stop <= limit:
        problem = f"must be A:B, the rows A … B − 1, with 0 ≤ A < B ≤ {limit}, not {rows.start}:{rows.stop}"
        raise InvalidInput("rows", problem)


class Encoder(Protocol):
    """Makes one kind of shard."""

    def encode(self, rows: range, pixels: Pixels) -> bytes:
        """Return the images [N, H, W, C] of some rows as they stand in the file."""

    def write(self, file: BufferedIOBase, rows: range, encoded: Iterable[bytes]) -> None:
        """Write a whole file, given what `encode` returns for all its rows, in order."""


def encoder(series: Series, shape: tuple[int, int, int]) -> Encoder:
    """Return the encoder of shards of images [H, W, C]."""
    return _Npz(series, shape) if series.format == "npz" else _Tar(series, series.format)


class _Tar:
    """Tar files as WebDataset reads them: for each row a picture and a JSON document."""

    def __init__(self, series: Series, encoding: images.Encoding) -> None:
        self._series = series
        self._encoding = encoding

    def encode(self, rows: range, pixels: Pixels) -> bytes:
        seed, digest = self._series.seed, self._series.digest
        parts: list[bytes] = []
        for row, image in zip(rows, pixels, strict=True):
            key = f"{seed}-{row:016d}"
            parts += _member(f"{key}.{self._encoding}", images.encode(image, self._encoding))
            parts += _member(f"{key}.json", json.dumps({"seed": seed, "row": row, "digest": digest}).encode())
        return b"".join(parts)

    def write(self, file: BufferedIOBase, rows: range, encoded: Iterable[bytes]) -> None:
        for batch in encoded:
            file.write(batch)
        file.write(bytes(2 * tarfile.BLOCKSIZE))
        file.write(bytes(-file.tell() % tarfile.RECORDSIZE))


def _member(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the header, the content and the padding of a file in a tar file.

    The bytes are those of `tarfile`, which takes ten times as long.
    """
    label, size = name.encode(), b"%011o\0" % len(data)
    checksum = b"%06o\0 " % (_SUM + sum(label) + sum(size))
    header = label + _HEADER[len(label) : 124] + size + _HEADER[136:148] + checksum + _HEADER[156:]
    return header, data, bytes(-len(data) % tarfile.BLOCKSIZE)


class _Npz:
    """NumPy files of the arrays `images` [N, H, W, C], `rows` [N], `seed` and `digest`, not compressed."""

    def __init__(self, series: Series, shape: tuple[int, int, int]) -> None:
        self._series = series
        self._shape = shape

    def encode(self, rows: range, pixels: Pixels) -> bytes:
        return pixels.tobytes()

    def write(self, file: BufferedIOBase, rows: range, encoded: Iterable[bytes]) -> None:
        numbers = np.arange(rows.start, rows.stop, dtype=np.int64)
        with zipfile.ZipFile(file, "w") as archive:
            with _array_in(archive, "images") as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(rows), *self._shape)}
                np.lib.format.write_array_header_1_0(member, header)
                for batch in encoded:
                    member.write(batch)
            for name, value in (("rows", numbers), ("seed", self._series.seed), ("digest", self._series.digest)):
                with _array_in(archive, name) as member:
                    np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


def _array_in(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Begin an array of an .npz file. A ZipInfo is of the year 1980, so the bytes do not depend on the clock."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def seal(file: BufferedIOBase, path: Path, series: Series, rows: range) -> None:
    """Write the record of a shard that is whole, but has not its name yet.

    The record comes first, because a shard without one is then never one that was interrupted here.

    Args:
        file: The shard, open and written to its end.
        path: The name that the shard will have.
        series: What it has in common with others.
        rows: The rows that it holds.
    """
    shard = Shard(name=path.name, rows=(rows.start, rows.stop), bytes=file.tell(), sha256=_sha256(file))
    _write(_record_path(path), Record(**dict(series), shard=shard))


def is_right(path: Path) -> bool:
    """Return whether a shard is there and has the checksum of its record."""
    record = _read_record(path)
    if record is None or not path.exists():
        return False
    with files.named_errors(path, "read"), path.open("rb") as file:
        return _sha256(file) == record.shard.sha256


def check_names(out: Path, names: Iterable[str], plan: Plan) -> None:
    """Check that all shards of a folder are of a plan.

    Args:
        out: The folder.
        names: The files in the folder; those that are no shards are passed over.
        plan: The plan.

    Raises:
        RaeServeError: A shard is of something else, or its origin is not known.
    """
    for name in names:
        if found := _NAME.fullmatch(name):
            _checked_record(out / found[1], plan)


def write_list(out: Path, names: set[str], plan: Plan, model: str) -> bool:
    """Write `generate.json` if all shards of a plan are there, and return whether they are.

    Args:
        out: The folder.
        names: The files in the folder.
        plan: The plan.
        model: The name of the bundle.
    """

    def paths() -> Iterator[Path]:
        return (out / plan.name(index) for index in range(len(plan)))

    if not all({path.name, _record_path(path).name} <= names for path in paths()):
        return False
    shards = [_checked_record(path, plan).shard for path in paths()]
    rows = (plan.rows.start, plan.rows.stop)
    facts = {"model": model, "rows": rows, "rows_per_shard": plan.rows_per_shard, "shards": shards}
    _write(out / LIST, ShardList(**dict(plan.series), **facts))
    return True


def _checked_record(path: Path, plan: Plan) -> Record:
    """Return the record of a shard. Raise RaeServeError if there is none, or if the shard is not of this plan."""
    record = _read_record(path)
    if record is None:
        raise RaeServeError(f"{path} has no record, so its origin is not known; remove it or choose another folder")
    for field in Series.model_fields:
        has, wanted = getattr(record, field), getattr(plan.series, field)
        if has != wanted:
            raise RaeServeError(f"{path} was made with the {field} {has}, not {wanted}; choose another folder")
    if plan.index(path.name) is None:
        cut = f"{plan.rows.start}:{plan.rows.stop}, cut after every {plan.rows_per_shard}"
        raise RaeServeError(f"{path} is no shard of the rows {cut}; choose another folder")
    return record


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_record(path: Path) -> Record | None:
    """Return the record of a shard; None if there is none. Raise RaeServeError if it is damaged."""
    file = _record_path(path)
    with files.named_errors(file, "read"):
        if not file.exists():
            return None
        text = file.read_bytes()
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        record = None
    if record is None or record.shard.name != path.name:
        raise RaeServeError(f"{file} is not the record of {path.name}; remove both, or choose another folder")
    return record


def _write(path: Path, document: BaseModel) -> None:
    files.write(path, (document.model_dump_json(indent=1) + "\n").encode())


def _sha256(file: BufferedIOBase) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
