"""Decode picture files to one uint8 array, which is kept in a cache on disk if it is large."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from rae_serve import picture_files
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput, RaeServeError
from rae_serve.files import write
from rae_serve.preprocessing import REVISION, Preprocessing, is_dark
from training.data import sources

LARGE_BYTES: Final = 1 << 30  # more bytes of images than this are mapped from a cache file, not held in memory

Item = TypeVar("Item")


@dataclass
class Findings:
    """What decoding finds out about files.

    Attributes:
        unreadable: The row of each unreadable file, and the reason.
        dark: How many 16-bit pictures are dark because they may hold fewer bits.
    """

    unreadable: list[tuple[int, str]] = field(default_factory=list)
    dark: int = 0


def decode(files: Sequence[Path], preprocessing: Preprocessing) -> tuple[Pixels, Findings]:
    """Decode and preprocess files. Read the images from the cache if they are large and already there.

    Returns:
        The images, uint8 [N, H, W, C], of which unreadable ones are black, and what was found out about the files.
    """
    shape = (len(files), *preprocessing.shape)
    findings = Findings()
    if np.prod(shape, dtype=np.int64) <= LARGE_BYTES:
        images = np.zeros(shape, np.uint8)
        for row, image in enumerate(_decode_each(files, preprocessing, findings)):
            images[row] = image
        return images, findings
    cached = sources.cache_folder() / "decoded" / f"{_cache_key(files, preprocessing)}.npy"
    record = cached.with_suffix(".findings.json")
    if not record.is_file():
        try:
            _decode_to(cached, files, preprocessing, findings)
        except OSError as error:
            problem = f"{cached.parent} cannot be written: {error.strerror}; RAE_SERVE_CACHE names another cache"
            raise RaeServeError(problem) from None
        write(record, json.dumps(asdict(findings)).encode())  # last: its presence says that the array is complete
    return np.load(cached, mmap_mode="r"), Findings(**json.loads(record.read_text()))


def _decode_to(path: Path, files: Sequence[Path], preprocessing: Preprocessing, findings: Findings) -> None:
    """Write the images of files as one .npy file, and add to the findings.

    The images are written row by row. With a memory map of the file, a full disk would kill the process by a signal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *preprocessing.shape)}
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".draft", delete=False) as draft:
        try:
            np.lib.format.write_array_header_1_0(draft, header)
            for image in _decode_each(files, preprocessing, findings):
                draft.write(image.tobytes())
            draft.flush()
            os.fsync(draft.fileno())
            Path(draft.name).replace(path)
        finally:
            Path(draft.name).unlink(missing_ok=True)


def _decode_each(files: Sequence[Path], preprocessing: Preprocessing, findings: Findings) -> Iterator[Pixels]:
    """Yield the image of each file in turn, black if the file cannot be read, and add to the findings."""

    def decode(path: Path) -> tuple[Pixels, bool] | str:
        try:
            picture = picture_files.read(path)
            return preprocessing(picture), is_dark(picture)
        except InvalidInput as error:
            return error.problem

    with ThreadPoolExecutor() as threads:  # Pillow frees the GIL while it decodes
        decoded = threads.map(decode, files)
        for row, result in enumerate(with_progress(decoded, len(files), "decoding")):
            if isinstance(result, str):
                findings.unreadable.append((row, result))
                yield np.zeros(preprocessing.shape, np.uint8)
            else:
                image, dark = result
                findings.dark += dark
                yield image


def _cache_key(files: Sequence[Path], preprocessing: Preprocessing) -> str:
    """Return a key that changes with the preprocessing and with the path, size or time of any file."""
    sha256 = hashlib.sha256(f"{REVISION} {preprocessing.model_dump_json()}".encode())
    for path in files:
        try:
            facts: os.stat_result | None = path.stat()
        except OSError:  # decoding will report the file as unreadable
            facts = None
        stamp = f"{facts.st_size}\0{facts.st_mtime_ns}" if facts else ""
        sha256.update(os.fsencode(f"{path.resolve()}\0{stamp}\n"))
    return sha256.hexdigest()[:32]


def with_progress(items: Iterable[Item], total: int, doing: str) -> Iterable[Item]:
    """Yield the items, and show a progress bar if stderr is a terminal."""
    console = Console(stderr=True)
    return track(items, f"{doing} {total:,} images", total, console=console, disable=not console.is_terminal)
