"""Images as training sees them: uint8 arrays, a part of them held out."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.preprocessing import Preprocessing, upright_size
from training.data import sources
from training.data.batches import Index
from training.data.decoding import decode, shown

MAX_VALIDATION: Final = 5000
_GUESSED_SIDE: Final = 64  # of images that come in many sizes: what a CPU trains on in an hour
_HEADERS_READ: Final = 1000


@dataclass(frozen=True)
class Dataset:
    """uint8 images [N, H, W, C], and which of them train and which are held out to choose by."""

    name: str
    images: Pixels
    train: Index
    validation: Index
    preprocessing: Preprocessing
    skipped: tuple[str, ...] = ()  # files that are no readable images, and why

    def holding_out(self, count: int) -> Dataset:
        """The same images, `count` of those that train held out: the same ones whatever a run's seed."""
        order = np.random.default_rng(0).permutation(self.train)
        return replace(self, train=np.sort(order[count:]), validation=np.sort(order[:count]))

    def digest(self) -> str:
        """Return the SHA-256 over the shape and the pixels of the training images, in their order."""
        return digest(self.images, self.train)


def digest(images: Pixels, rows: Index | None = None) -> str:
    """Return the SHA-256 over the shape and the pixels of images: of all of them, or of those at `rows`, in order."""
    rows = np.arange(len(images)) if rows is None else rows
    sha256 = hashlib.sha256(repr((len(rows), *images.shape[1:])).encode())
    for start in range(0, len(rows), 4096):
        sha256.update(images[rows[start : start + 4096]].tobytes())
    return sha256.hexdigest()


def load(
    source: str,
    known_as: str,
    *,
    shape: dict[str, Any],
    validation: float = 0.0,
    split: sources.Split = "train",
) -> Dataset:
    """The images of `source` (see sources.read), a fraction `validation` of them held out, at most 5,000.

    `shape` holds the fields of Preprocessing that are decided; the rest follows from the data. Files that are
    no images are skipped and named in the result. Raises InvalidInput, naming `data`, where they are most.
    """
    name, raw = sources.read(source, known_as, split)
    preprocessing = Preprocessing(**(_guess(raw, source) | shape))
    if isinstance(raw, list):
        images, unreadable = decode(raw, preprocessing)
        skipped = tuple(f"{raw[row]}: {reason}" for row, reason in unreadable)
        if 2 * len(unreadable) > len(raw):
            raise InvalidInput(
                "data", f"{len(unreadable)} of {len(raw)} files are no readable images, such as {skipped[0]}"
            )
    else:
        images, unreadable, skipped = _fit(raw, preprocessing), [], ()
    readable = np.delete(np.arange(len(images)), [row for row, _ in unreadable])
    held_out = min(int(len(readable) * validation), MAX_VALIDATION)
    if len(readable) - held_out < 2:
        raise InvalidInput("data", f"{source} has {len(readable)} images, too few to train on")
    return Dataset(name, images, readable, readable[:0], preprocessing, skipped).holding_out(held_out)


def test_images(source: str, known_as: str, shape: dict[str, Any]) -> Pixels:
    """The readable images of the test split, uint8 [N, H, W, C]. Raises InvalidInput, naming `data`, for none."""
    test = load(source, known_as, shape=shape, split="test")
    return test.images[test.train]


def _guess(raw: Pixels | list[Path], source: str) -> dict[str, Any]:
    """Height, width and mode that fit the data: their own where they agree, else a square of 64 or 32."""
    if isinstance(raw, list):
        step = -(-len(raw) // _HEADERS_READ)
        headers = [header for path in raw[::step] if (header := _header(path))]
        if not headers:
            raise InvalidInput("data", f"{source} holds no image that can be read")
        sizes = {(width, height) for width, height, _ in headers}
        grey = all(mode in ("L", "1", "LA", "I;16") for *_, mode in headers)
    else:
        sizes = {(raw.shape[2], raw.shape[1])}
        grey = raw.shape[3] == 1
    width, height = next(iter(sizes))
    if len(sizes) > 1 or width % 4 or height % 4 or max(width, height) > 2 * _GUESSED_SIDE:
        small = np.median([min(size) for size in sizes]) < _GUESSED_SIDE
        width = height = _GUESSED_SIDE // 2 if small else _GUESSED_SIDE
    return {"width": width, "height": height, "mode": "L" if grey else "RGB"}


def _header(path: Path) -> tuple[int, int, str] | None:
    try:
        with Image.open(path) as picture:
            return *upright_size(picture), picture.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _fit(raw: Pixels, preprocessing: Preprocessing) -> Pixels:
    """An array's images, preprocessed; the array itself where that changes nothing."""
    height, width, channels = raw.shape[1:]
    if channels == preprocessing.shape[2] and preprocessing.keeps(width, height):
        return raw
    images = np.empty((len(raw), *preprocessing.shape), np.uint8)
    with ThreadPoolExecutor() as threads:
        prepared = threads.map(lambda image: preprocessing(_picture(image)), raw)
        for row, image in enumerate(shown(prepared, len(raw), "preparing")):
            images[row] = image
    return images


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
