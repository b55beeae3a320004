"""Measure the CPU time and the file size of PNG files: rae_serve/png.py with deflate and with zlib, against Pillow.

    pip install '.[server]'
    python -m benchmarks.png_writer PHOTOS

Pillow writes at zlib level 1. The grey images are digits that `exported/flexae-mnist-small` generates, and the colour
images are photographs of the folder PHOTOS at 64 × 64. The writers take turns. A time is the median of all turns, in
milliseconds of CPU per file, and a size is the sum over all files in relation to Pillow's.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from rae_serve import images, picture_files, png
from rae_serve.arrays import Pixels
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.preprocessing import Preprocessing

IMAGES = 64
GRID = 16  # images of a grid


def pillow(image: Pixels) -> bytes:
    """Encode an image to a PNG file by Pillow."""
    buffer = io.BytesIO()
    images.to_picture(image).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


# Each writer, with the library that it compresses with.
WRITERS: dict[str, tuple[Callable[[Pixels], bytes], png.Deflate]] = {
    "Pillow": (pillow, png.ZLIB),
    "deflate": (png.encode, png.compressor),
    "zlib": (png.encode, png.ZLIB),
}


def turn(writer: str, files: list[Pixels]) -> tuple[float, int]:
    """Encode every image, and return the milliseconds of CPU per file and the bytes of all files."""
    encode, library = WRITERS[writer]
    with mock.patch.object(png, "compressor", library):
        began = time.process_time()
        total = sum(len(encode(image)) for image in files)
        return 1000.0 * (time.process_time() - began) / len(files), total


def photographs(folder: Path) -> Pixels:
    """Return photographs of a folder, taken at equal distances from the list of all, uint8 [IMAGES, 64, 64, 3]."""
    paths = sorted(picture_files.find(folder))
    prepare = Preprocessing(height=64, width=64, mode="RGB")
    chosen = np.linspace(0, len(paths) - 1, IMAGES).astype(int)
    return np.stack([prepare(picture_files.read(paths[index])) for index in chosen])


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("photos", type=Path, help="a folder of at least 64 photographs")
    arguments.add_argument("--turns", type=int, default=40, help="turns of each writer; the median counts")
    given = arguments.parse_args()
    if png.compressor is png.ZLIB:
        arguments.error("deflate is not installed; run: pip install deflate")
    digits = Engine(Bundle.load(Path("exported/flexae-mnist-small")), device="cpu").sample(IMAGES, seed=7)
    print(f"{png.compressor.name}; {png.ZLIB.name}")
    for kind, pixels in {"28 × 28 grey": digits, "64 × 64 RGB": photographs(given.photos)}.items():
        grids = [images.grid(pixels[start : start + GRID]) for start in range(0, IMAGES, GRID)]
        for name, files in {kind: list(pixels), f"grid of {GRID}, {kind}": grids}.items():
            times: dict[str, list[float]] = {writer: [] for writer in WRITERS}
            sizes: dict[str, int] = {}
            for _ in range(given.turns):
                for writer in WRITERS:
                    milliseconds, sizes[writer] = turn(writer, files)
                    times[writer].append(milliseconds)
            for writer, measured in times.items():
                ratio = sizes[writer] / sizes["Pillow"]
                print(f"{name:24} {writer:6} {np.median(measured):7.3f} ms   size: {ratio:.3f}", flush=True)
