"""Files of pictures to arrays, with a cache on disk for what is large."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import track

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput, RaeServeError
from rae_serve.files import write
from rae_serve.preprocessing import Preprocessing, read_picture
from training.data import sources

MAX_FILE_PIXELS: Final = 178_000_000  # of a file to train on: one's own, so as much as Pillow opens
LARGE_BYTES: Final = 1 << 30  # decoded images beyond this are mapped from a cache file, not held in memory

Unreadable = list[tuple[int, str]]  # row, and why


def decode(files: Sequence[Path], preprocessing: Preprocessing) -> tuple[Pixels, Unreadable]:
    """Images of files; those that are none are black. Kept in the cache where they are large."""
    shape = (len(files), *preprocessing.shape)
    if np.prod(shape, dtype=np.int64) <= LARGE_BYTES:
        images = np.zeros(shape, np.uint8)
        unreadable = []
        for row, image in enumerate(_decoded(files, preprocessing)):
            if isinstance(image, str):
                unreadable.append((row, image))
            else:
                images[row] = image
        return images, unreadable
    cached = sources.cache_folder() / "decoded" / f"{_decoded_key(files, preprocessing)}.npy"
    listing = cached.with_suffix(".unreadable.json")
    if not listing.is_file():
        try:
            unreadable = _decode_to(cached, files, preprocessing)
        except OSError as error:
            problem = f"{cached.parent} cannot be written: {error.strerror}; RAE_SERVE_CACHE names another cache"
            raise RaeServeError(problem) from None
        write(listing, json.dumps(unreadable).encode())  # last: it says that the array beside it is there
    return np.load(cached, mmap_mode="r"), json.loads(listing.read_text())


def _decode_to(path: Path, files: Sequence[Path], preprocessing: Preprocessing) -> Unreadable:
    """Write the images of files as one array.

    Row by row, not through a map of the file, where a full disk would be a signal that kills the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *preprocessing.shape)}
    black = np.zeros(preprocessing.shape, np.uint8)
    unreadable = []
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".draft", delete=False) as draft:
        try:
            np.lib.format.write_array_header_1_0(draft, header)
            for row, image in enumerate(_decoded(files, preprocessing)):
                if isinstance(image, str):
                    unreadable.append((row, image))
                    image = black
                draft.write(image)
            draft.flush()
            os.fsync(draft.fileno())
            Path(draft.name).replace(path)
        finally:
            Path(draft.name).unlink(missing_ok=True)
    return unreadable


def _decoded(files: Sequence[Path], preprocessing: Preprocessing) -> Iterator[Pixels | str]:
    """The image of each file in turn, or why there is none."""

    def decode(path: Path) -> Pixels | str:
        try:
            return preprocessing(read_picture(path.read_bytes(), max_pixels=MAX_FILE_PIXELS))
        except InvalidInput as error:
            return error.problem
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except ValueError as error:  # a conversion that Pillow lacks
            return str(error)

    with ThreadPoolExecutor() as threads:  # Pillow frees the GIL while it decodes
        yield from shown(threads.map(decode, files), len(files), "decoding")


def _decoded_key(files: Sequence[Path], preprocessing: Preprocessing) -> str:
    sha256 = hashlib.sha256(preprocessing.model_dump_json().encode())
    for path in files:
        try:
            facts: os.stat_result | None = path.stat()
        except OSError:  # it will be skipped, and named
            facts = None
        stamp = f"{facts.st_size}\0{facts.st_mtime_ns}" if facts else ""
        sha256.update(f"{path.resolve()}\0{stamp}\n".encode())
    return sha256.hexdigest()[:32]


def shown(items: Iterable[Any], total: int, doing: str) -> Iterable[Any]:
    """The items, with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(items, f"{doing} {total:,} images", total, console=console, disable=not console.is_terminal)
