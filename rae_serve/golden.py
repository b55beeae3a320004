"""The golden vectors of a bundle, `golden.json`, by which programs in other languages check themselves."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rae_serve import png

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6  # colour types of PNG
_ORIENTATION_TAG: Final = 0x0112  # of EXIF


def png_file(
    samples: npt.NDArray[Any],
    colour_type: int,
    *,
    depth: int = 8,
    palette: bytes = b"",
    transparency: bytes = b"",
    orientation: int = 1,
) -> bytes:
    """Return a PNG file of a kind that `png.encode` does not write.

    Args:
        samples: Integers [H, W, C] below 2**depth.
        colour_type: GREY, COLOUR, PALETTE, GREY_ALPHA or COLOUR_ALPHA.
        depth: Bits per sample: 1, 2, 4, 8 or 16.
        palette: The data of the chunk PLTE; no such chunk if empty.
        transparency: The data of the chunk tRNS; no such chunk if empty.
        orientation: The EXIF orientation, in a chunk eXIf; no such chunk if 1.
    """
    height, width = samples.shape[:2]
    bits = samples.reshape(height, -1, 1) >> np.arange(depth)[::-1] & 1
    rows = np.packbits(bits.astype(np.uint8).reshape(height, -1), axis=1)
    filtered = np.pad(rows, ((0, 0), (1, 0)))  # each row begins with its filter type: 0, none
    # An EXIF block of one entry: the tag, type 3 (a 16-bit number), one of them.
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, _ORIENTATION_TAG, 3, 1, orientation, 0, 0)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0),
        b"eXIf": exif if orientation != 1 else b"",
        b"PLTE": palette,
        b"tRNS": transparency,
        b"IDAT": zlib.compress(filtered.tobytes(), 9),
    }
    return png.container((kind, data) for kind, data in chunks.items() if data)
