"""Encode images to files: pictures, grids, animations, NumPy arrays and zip archives."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from rae_serve import png
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput

Encoding = Literal["png", "webp", "jpeg"]
Animation = Literal["gif", "webp"]

MEDIA_TYPES: Final[dict[str, str]] = {
    "png": "image/png",
    "webp": "image/webp",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "npy": "application/x-npy",
    "zip": "application/zip",
    "json": "application/json",
}
FRAME_RATE: Final = 10.0  # images per second of an animation, unless the caller sets it
# How Pillow saves a picture; PNG is written by rae_serve/png.py.
_SAVE_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "webp": {"lossless": True},
    "jpeg": {"quality": 95, "subsampling": 0},
}
# Limits of the file formats, in pixels.
_MAX_SIDE: Final[dict[str, int]] = {"webp": 16383, "jpeg": 65500}


def grid(images: Pixels, columns: int | None = None) -> Pixels:
    """Arrange images [N, H, W, C] in a grid [rows·H, columns·W, C], row by row and without gaps.

    Cells without an image are black. The default number of columns, ⌈√N⌉, makes the grid nearly square.
    """
    n, height, width, channels = images.shape
    columns = columns or math.isqrt(n - 1) + 1
    rows = -(-n // columns)
    cells = np.zeros((rows * columns, height, width, channels), np.uint8)
    cells[:n] = images
    cells = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return cells.reshape(rows * height, columns * width, channels)


def to_picture(pixels: Pixels) -> Image.Image:
    """Return a Pillow picture of one image [H, W, C]: mode L if C is 1, RGB if C is 3."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def encode(image: Pixels, encoding: Encoding = "png") -> bytes:
    """Encode one image [H, W, C] to a picture file. PNG and WebP are lossless, JPEG is not.

    Raises:
        InvalidInput: The image is larger than the file format allows (the field is `format`, of PNG `image`), or is
            none that PNG can hold (`image`).
    """
    if encoding == "png":
        return png.encode(image)
    height, width, _ = image.shape
    if max(height, width) > _MAX_SIDE[encoding]:
        problem = f"{encoding} has at most {_MAX_SIDE[encoding]} pixels a side, and this image has {width} × {height}"
        raise InvalidInput("format", f"{problem}; ask for png, or for fewer images")
    buffer = io.BytesIO()
    to_picture(image).save(buffer, encoding, **_SAVE_OPTIONS[encoding])
    return buffer.getvalue()


def animate(
    images: Pixels, encoding: Animation, *, frame_rate: float = FRAME_RATE, there_and_back: bool = False
) -> bytes:
    """Encode images to an endless animation. WebP is lossless; GIF has 256 colours per image.

    Args:
        images: The images, uint8 [N, H, W, C].
        encoding: "gif" or "webp".
        frame_rate: Images per second. GIF rounds the time of an image to 1/100 s, WebP to 1/1000 s.
        there_and_back: Whether the images are shown backwards after the last one, so that the animation never jumps.
    """
    buffer = io.BytesIO()
    frames = [to_picture(image) for image in images]
    if there_and_back:
        frames += frames[-2:0:-1]
    options = {"lossless": True} if encoding == "webp" else {}
    duration = round(1000 / frame_rate)
    frames[0].save(buffer, encoding, save_all=True, append_images=frames[1:], duration=duration, loop=0, **options)
    return buffer.getvalue()


def encode_npy(array: npt.NDArray[Any]) -> bytes:
    """Encode an array to a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def encode_npz(arrays: Mapping[str, Any]) -> bytes:
    """Encode arrays to a compressed .npz file, by name."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def encode_zip(images: Pixels, names: list[str]) -> bytes:
    """Encode images [N, H, W, C] to a zip archive of PNG files. Equal images and names give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # a PNG file is already compressed
        for image, name in zip(images, names, strict=True):
            archive.writestr(zipfile.ZipInfo(name), encode(image))
    return buffer.getvalue()
