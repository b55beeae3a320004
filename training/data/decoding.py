"""Decode picture files to one uint8 array, which is kept in a cache on disk if it is large."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput, RaeServeError
from rae_serve.files import write
from rae_serve.preprocessing import Preprocessing, read_picture
from training.data import sources

# The most pixels of a picture to train on. Users trust their own files, so this is the most that Pillow opens.
MAX_FILE_PIXELS: Final = 178_000_000
LARGE_BYTES: Final = 1 << 30  # more bytes of images than this are mapped from a cache file, not held in memory

Unreadable = list[tuple[int, str]]  # the row of an unreadable file, and the reason
Item = TypeVar("Item")


def decode(files: Sequence[Path], preprocessing: Preprocessing) -> tuple[Pixels, Unreadable]:
    """Decode and preprocess files. A large set of images is kept in the cache, and read from there the next time.

    Returns:
        The images, uint8 [N, H, W, C], of which unreadable ones are black, and a list of the unreadable ones.
    """
    shape = (len(files), *preprocessing.shape)
    unreadable: Unreadable = []
    if np.prod(shape, dtype=np.int64) <= LARGE_BYTES:
        images = np.empty(shape, np.uint8)
        for row, image in enumerate(_decode_each(files, preprocessing, unreadable)):
            images[row] = image
        return images, unreadable
    cached = sources.cache_folder() / "decoded" / f"{_cache_key(files, preprocessing)}.npy"
    listing = cached.with_suffix(".unreadable.json")
    if not listing.is_file():
        try:
            _decode_to(cached, files, preprocessing, unreadable)
        except OSError as error:
            problem = f"{cached.parent} cannot be written: {error.strerror}; RAE_SERVE_CACHE names another cache"
            raise RaeServeError(problem) from None
        write(listing, json.dumps(unreadable).encode())  # last, because its presence says that the array is complete
    return np.load(cached, mmap_mode="r"), json.loads(listing.read_text())


def _decode_to(path: Path, files: Sequence[Path], preprocessing: Preprocessing, unreadable: Unreadable) -> None:
    """Write the images of files as one .npy file, and note the unreadable files.

    The images are written row by row. With a memory map of the file, a full disk would kill the process by a signal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *preprocessing.shape)}
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".draft", delete=False) as draft:
        try:
            np.lib.format.write_array_header_1_0(draft, header)
            for image in _decode_each(files, preprocessing, unreadable):
                draft.write(image.tobytes())
            draft.flush()
            os.fsync(draft.fileno())
            Path(draft.name).replace(path)
        finally:
            Path(draft.name).unlink(missing_ok=True)


def _decode_each(files: Sequence[Path], preprocessing: Preprocessing, unreadable: Unreadable) -> Iterator[Pixels]:
    """Yield the image of each file in turn. For an unreadable file, yield a black image and note the reason."""
    black = np.zeros(preprocessing.shape, np.uint8)

    def decode(path: Path) -> Pixels | str:
        try:
            return preprocessing(read_picture(path.read_bytes(), max_pixels=MAX_FILE_PIXELS))
        except InvalidInput as error:
            return error.problem
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except ValueError as error:  # Pillow cannot convert between these modes
            return str(error)

    with ThreadPoolExecutor() as threads:  # Pillow frees the GIL while it decodes
        for row, image in enumerate(with_progress(threads.map(decode, files), len(files), "decoding")):
            if isinstance(image, str):
                unreadable.append((row, image))
            yield black if isinstance(image, str) else image


def _cache_key(files: Sequence[Path], preprocessing: Preprocessing) -> str:
    """Return a key that changes with the preprocessing and with the path, size or time of any file."""
    sha256 = hashlib.sha256(preprocessing.model_dump_json().encode())
    for path in files:
        try:
            facts: os.stat_result | None = path.stat()
        except OSError:  # decoding will report the file as unreadable
            facts = None
        stamp = f"{facts.st_size}\0{facts.st_mtime_ns}" if facts else ""
        sha256.update(f"{path.resolve()}\0{stamp}\n".encode())
    return sha256.hexdigest()[:32]


def with_progress(items: Iterable[Item], total: int, doing: str) -> Iterable[Item]:
    """Yield the items, and show a progress bar if stderr is a terminal."""
    console = Console(stderr=True)
    return track(items, f"{doing} {total:,} images", total, console=console, disable=not console.is_terminal)
