"""Write PNG files (https://www.w3.org/TR/png-3/), several times faster than Pillow does and with the same pixels."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import numpy as np

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput


class Deflate(NamedTuple):
    """A library that makes zlib streams."""

    name: str  # with its version, because the stream depends on it
    compress: Callable[[Any], bytes]  # a C-contiguous buffer to a zlib stream


# zlib's level 1 makes larger files, and its level 3 is slower.
ZLIB: Final = Deflate(f"zlib {zlib.ZLIB_RUNTIME_VERSION}", lambda data: zlib.compress(data, 2))
compressor = ZLIB
try:
    import deflate
except ImportError:
    pass
else:
    # libdeflate. ISA-L is a little faster, but one image does not always make the same bytes there.
    compressor = Deflate(f"deflate {deflate.__version__}", lambda data: bytes(deflate.zlib_compress(data, 1)))

_WRITER: Final = 2  # the revision of this module: add one when a file's bytes change
_MAX_SIZE: Final = 2**31 - 1  # the largest side of a picture, and the largest chunk in bytes
_COLOUR_TYPES: Final = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: grey and RGB, and each with alpha
_NONE, _AVERAGE = 0, 3  # filter types: the bytes as they are, and less the mean of the left and the upper neighbour


def encode(image: Pixels) -> bytes:
    """Encode one image, uint8 [H, W] or [H, W, C], to a PNG file. C is 1 or 3, or with alpha 2 or 4.

    The same image makes the same bytes wherever `REVISION` is the same.

    Raises:
        InvalidInput: The array has another shape or type, or is too large; the field is `image`.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in _COLOUR_TYPES:
        problem = "must be uint8 of shape [H, W] or [H, W, C] with 1 to 4 channels"
        raise InvalidInput("image", f"{problem}, not {image.dtype} of shape {list(image.shape)}")
    height, width = image.shape[:2]
    if not 0 < min(height, width) <= max(height, width) <= _MAX_SIZE:
        raise InvalidInput("image", f"png has 1 to {_MAX_SIZE} pixels a side, and this image has {width} × {height}")
    rows = image.reshape(height, width * channels)
    filtered = np.empty((height, 1 + width * channels), np.uint8)
    if 4 * np.count_nonzero(rows) < 3 * rows.size:  # mostly black, as digits are
        filtered[:, 0] = _NONE
        filtered[:, 1:] = rows
    else:
        left, above = np.zeros_like(rows), np.zeros_like(rows)  # outside of the picture all is zero
        left[:, channels:] = rows[:, :-channels]
        above[1:] = rows[:-1]
        filtered[:, 0] = _AVERAGE
        np.subtract(rows, (left & above) + ((left ^ above) >> 1), out=filtered[:, 1:])
    data = compressor.compress(filtered)
    if len(data) > _MAX_SIZE:
        raise InvalidInput("image", f"{width} × {height} pixels are too many for one PNG file; write several")
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return container([(b"IHDR", header), (b"IDAT", data)])


def container(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a PNG file of chunks, each a kind and its data, without the chunk that ends the file."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in [*chunks, (b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))))


def revision() -> str:
    """Return a short hash of everything that the bytes of a file depend on, except the image.

    The hash includes a sample file, because two builds of one version may differ.
    """
    sample = (np.multiply.outer(np.arange(64), np.arange(64)) % 251).astype(np.uint8)
    facts = f"{_WRITER} {compressor.name} ".encode() + encode(sample)
    return hashlib.sha256(facts).hexdigest()[:8]


REVISION: Final = revision()
