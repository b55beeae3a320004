"""Images to train on as one uint8 array, with some of them held out for validation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from rae_serve import picture_files
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.files import printable
from rae_serve.images import to_picture
from rae_serve.picture_files import Header
from rae_serve.preprocessing import Preprocessing
from training.data import sources
from training.data.batches import Index
from training.data.decoding import Findings, decode, with_progress

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
    if isinstance(raw, list):
        preprocessing, images, findings = _decode(raw, source, shape)
        skipped = tuple(f"{printable(raw[row])}: {reason}" for row, reason in findings.unreadable)
        if 2 * len(skipped) > len(raw):
            raise InvalidInput(
                "data", f"{len(skipped)} of {len(raw)} files cannot be read as images, such as {skipped[0]}"
            )
        picture_files.warn_of_dark(findings.dark)
        readable = np.delete(np.arange(len(images)), [row for row, _ in findings.unreadable])
    else:
        height, width, channels = raw.shape[1:]
        preprocessing = Preprocessing(**(_guess_shape([Header(width, height, channels == 1)]) | shape))
        images, skipped = _preprocess(raw, preprocessing), ()
        readable = np.arange(len(images))
    held_out = min(int(len(readable) * validation), MAX_VALIDATION)
    if len(readable) - held_out < 2:
        problem = f"{source} has {len(readable)} images, too few to train on"
        if held_out:
            problem += f" when validation={validation:g} holds out {held_out} of them: at least 2 must be left"
        raise InvalidInput("data", problem)
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


def _decode(files: list[Path], source: str, shape: dict[str, Any]) -> tuple[Preprocessing, Pixels, Findings]:
    """Decode files, with the preprocessing that suits those that can be read, and say which preprocessing it is.

    Args:
        files: The files.
        source: What they are from, for an error.
        shape: The fields of Preprocessing that are given.

    Raises:
        InvalidInput: naming `data`, if none of the files that are looked at is a picture.
    """
    headers: dict[int, Header] = {}
    reasons = []
    for row in range(0, len(files), -(-len(files) // _HEADERS_READ)):
        try:
            headers[row] = picture_files.read_header(files[row])
        except InvalidInput as error:
            reasons.append(f"{printable(files[row])}: {error.problem}")
    if not headers:
        raise InvalidInput("data", f"{source} holds no image that can be read, such as {reasons[0]}")
    preprocessing = Preprocessing(**(_guess_shape(headers.values()) | shape))
    images, findings = decode(files, preprocessing)
    # A file may be damaged behind a good header. Those files must not decide how the others look.
    readable = [headers[row] for row in headers.keys() - dict(findings.unreadable)]
    better = Preprocessing(**(_guess_shape(readable) | shape)) if readable else preprocessing
    return (preprocessing, images, findings) if better == preprocessing else (better, *decode(files, better))


def _guess_shape(headers: Collection[Header]) -> dict[str, Any]:
    """Return the height, width and mode that suit images with these headers.

    Height and width are those that most images have, if they are multiples of 4, as the networks need, or above 64
    pixels of 8, without which few convolutions would leave a large model; up to 128. Otherwise they are 64, or 32 if
    most images are smaller than 64. The mode is grey if all images are.
    """
    (width, height), count = Counter((header.width, header.height) for header in headers).most_common(1)[0]
    longer = max(width, height)
    unit = 4 if longer <= _GUESSED_SIDE else 8
    if 2 * count <= len(headers) or width % unit or height % unit or longer > 2 * _GUESSED_SIDE:
        small = np.median([min(header.width, header.height) for header in headers]) < _GUESSED_SIDE
        width = height = _GUESSED_SIDE // 2 if small else _GUESSED_SIDE
    return {"width": width, "height": height, "mode": "L" if all(header.grey for header in headers) else "RGB"}


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
