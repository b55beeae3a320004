"""Images to train on as one uint8 array, with some of them held out for validation."""

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
from rae_serve.images import to_picture
from rae_serve.preprocessing import Preprocessing, upright_size
from training.data import sources
from training.data.batches import Index
from training.data.decoding import decode, with_progress

MAX_VALIDATION: Final = 5000  # the most images that `load` holds out
# Images of different sizes are resized to a square with this side, on which a CPU trains in about an hour.
_GUESSED_SIDE: Final = 64
_HEADERS_READ: Final = 1000  # the most files whose headers are read to guess size and mode


@dataclass(frozen=True)
class Dataset:
    """Images, split into those to train on and those held out for validation.

    Attributes:
        name: The name of the data set, of the folder, or of the file.
        images: uint8 [N, H, W, C].
        train: The rows of `images` to train on.
        validation: The rows of `images` that are held out.
        preprocessing: How each image was made from its source.
        skipped: The files that cannot be read as images, each with the reason.
    """

    name: str
    images: Pixels
    train: Index
    validation: Index
    preprocessing: Preprocessing
    skipped: tuple[str, ...] = ()

    def holding_out(self, count: int) -> Dataset:
        """Return the dataset with `count` of its training images held out instead.

        The choice does not depend on the seed of a run, so that runs with different seeds compare.
        """
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
    data_set: str,
    *,
    shape: dict[str, Any],
    validation: float = 0.0,
    split: sources.Split = "train",
) -> Dataset:
    """Read, preprocess and split the images of a source.

    Args:
        source: A data set by name, a folder or an array file; see `sources.read`.
        data_set: The data set to read from a folder that holds several.
        shape: The fields of Preprocessing that are given. The images decide the rest.
        validation: The fraction of images to hold out, at most MAX_VALIDATION images.
        split: "train" or "test".

    Raises:
        InvalidInput: naming `data`, if the source has fewer than two images to train on, or if more than half of
            its files cannot be read as images. Fewer unreadable files are skipped, and listed in the result.
    """
    name, raw = sources.read(source, data_set, split)
    preprocessing = Preprocessing(**(_guess_shape(raw, source) | shape))
    if isinstance(raw, list):
        images, unreadable = decode(raw, preprocessing)
        skipped = tuple(f"{raw[row]}: {reason}" for row, reason in unreadable)
        if 2 * len(unreadable) > len(raw):
            problem = f"{len(unreadable)} of {len(raw)} files cannot be read as images, such as {skipped[0]}"
            raise InvalidInput("data", problem)
    else:
        images, unreadable, skipped = _preprocess(raw, preprocessing), [], ()
    readable = np.delete(np.arange(len(images)), [row for row, _ in unreadable])
    held_out = min(int(len(readable) * validation), MAX_VALIDATION)
    if len(readable) - held_out < 2:
        raise InvalidInput("data", f"{source} has {len(readable)} images, too few to train on")
    return Dataset(name, images, readable, readable[:0], preprocessing, skipped).holding_out(held_out)


def test_images(source: str, data_set: str, shape: dict[str, Any]) -> Pixels:
    """Read and preprocess the images of the test split.

    Args:
        source: A data set by name, or a folder that holds one; see `sources.read`.
        data_set: The data set to read from a folder that holds several.
        shape: The fields of Preprocessing that are given. The images decide the rest.

    Returns:
        The readable images, uint8 [N, H, W, C].

    Raises:
        InvalidInput: naming `data`, if the source has no test split.
    """
    test = load(source, data_set, shape=shape, split="test")
    return test.images[test.train]


def _guess_shape(raw: Pixels | list[Path], source: str) -> dict[str, Any]:
    """Return the height, width and mode that suit the images.

    Height and width are those of the images, if all images have them and they are multiples of 4, as the networks
    need, up to 128. Otherwise they are 64, or 32 if most sizes are smaller than 64.
    """
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


def _preprocess(raw: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Preprocess the images of an array. Return the array itself if the preprocessing changes nothing."""
    height, width, channels = raw.shape[1:]
    if channels == preprocessing.shape[2] and preprocessing.keeps_size(width, height):
        return raw
    images = np.empty((len(raw), *preprocessing.shape), np.uint8)
    with ThreadPoolExecutor() as threads:
        prepared = threads.map(lambda image: preprocessing(to_picture(image)), raw)
        for row, image in enumerate(with_progress(prepared, len(raw), "preparing")):
            images[row] = image
    return images
