from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from rae_serve import images, png
from rae_serve.errors import InvalidInput

SHAPES = [
    (1, 1),
    (1, 1, 1),
    (1, 1, 3),
    (1, 7),
    (7, 1, 3),
    (8, 8, 1),
    (28, 28, 1),
    (9, 5, 2),
    (9, 5, 4),
    (64, 64, 3),
    (896, 840, 1),
    (512, 768, 3),
]
BACK_ENDS = ["deflate", "zlib"]


@pytest.fixture(params=BACK_ENDS)
def back_end(request, monkeypatch) -> str:
    if request.param == "deflate":
        pytest.importorskip("deflate", reason="deflate has no wheel for this platform")
        assert png.compressor.name.startswith("deflate ")
    else:
        monkeypatch.setattr(png, "compressor", png.ZLIB)
    return request.param


def pictures(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    smooth = (127 + 120 * np.sin(x / 9.0) * np.cos(y / 7.0)).astype(np.uint8)
    return {
        "random": rng.integers(0, 256, shape, np.uint8),
        "smooth": smooth if len(shape) == 2 else np.repeat(smooth[..., None], shape[2], axis=2),
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
    }


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Split a PNG file in its chunks, and check what a strict reader checks."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert len(body) == length
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        found.append((kind, body))
        at += 12 + length
    assert at == len(data)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_pillow_reads_the_same_pixels(shape, back_end):
    for kind, image in pictures(shape).items():
        picture = Image.open(io.BytesIO(png.encode(image)))
        assert picture.mode == ("L", "L", "LA", "RGB", "RGBA")[shape[2] if len(shape) == 3 else 0]
        assert picture.info == {}
        assert np.array_equal(np.asarray(picture).reshape(shape), image), kind


def unfiltered(rows: np.ndarray, channels: int) -> np.ndarray:
    """Undo the filters None and Average of the rows of a file, as the standard defines them (section 9)."""
    above = [0] * (rows.shape[1] - 1)
    found = []
    for kind, *values in rows.tolist():
        assert kind in (0, 3)
        if kind == 3:
            for i, value in enumerate(values):
                left = values[i - channels] if i >= channels else 0
                values[i] = (value + (left + above[i]) // 2) % 256
        found.append(values)
        above = values
    return np.array(found, np.uint8)


@pytest.mark.parametrize("shape", SHAPES[:-2])
def test_a_file_is_valid_for_a_strict_reader(shape, back_end):
    for image in pictures(shape).values():
        (start, header), (middle, data), end = chunks(png.encode(image))
        assert (start, middle, end) == (b"IHDR", b"IDAT", (b"IEND", b""))
        height, width = shape[:2]
        channels = shape[2] if len(shape) == 3 else 1
        assert header == struct.pack(">IIBBBBB", width, height, 8, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
        stream = zlib.decompressobj()
        rows = np.frombuffer(stream.decompress(data), np.uint8).reshape(height, 1 + width * channels)
        assert stream.eof
        assert stream.unused_data == b""
        assert np.array_equal(unfiltered(rows, channels).reshape(shape), image)


def test_the_same_image_makes_the_same_bytes(back_end):
    many = [image for shape in SHAPES for image in pictures(shape).values()]
    once = [png.encode(image) for image in many]
    assert [png.encode(image) for image in reversed(many)] == once[::-1]


def test_images_need_not_be_contiguous(back_end):
    image = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    views = [image[::-1], image[:, ::2], image[..., ::-1], image.swapaxes(0, 1), image[..., :1], image[3:9, 4:11, 1]]
    for view in [*views, np.asfortranarray(image), np.broadcast_to(image[:, :, :1], image.shape)]:
        assert not view.flags.c_contiguous
        assert png.encode(view) == png.encode(view.copy())


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.float32),
        np.zeros((8, 8), np.int8),
        np.zeros((8, 8), bool),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros(8, np.uint8),
        np.zeros((8, 8, 5), np.uint8),
        np.zeros((8, 8, 0), np.uint8),
        np.zeros((1, 8, 8, 1), np.uint8),
        np.zeros((0, 8), np.uint8),
        np.zeros((8, 0, 3), np.uint8),
    ],
    ids=lambda image: f"{image.dtype}{list(image.shape)}",
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(InvalidInput) as raised:
        images.encode(image)
    assert raised.value.field == "image"


def test_what_is_too_large_for_the_format_is_refused(monkeypatch):
    monkeypatch.setattr(png, "_MAX_SIZE", 300)
    with pytest.raises(InvalidInput, match="image: png has 1 to 300 pixels a side, and this image has 301 × 1"):
        png.encode(np.zeros((1, 301), np.uint8))
    with pytest.raises(InvalidInput, match="image: 64 × 64 pixels are too many for one PNG file"):
        png.encode(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))


def test_the_revision_knows_the_writer_the_library_and_its_bytes(monkeypatch):
    def other(name: str, level: int) -> str:
        monkeypatch.setattr(png, "compressor", png.Deflate(name, lambda data: zlib.compress(data, level)))
        return png.revision()

    known = [png.REVISION, other("zlib 1", 2), other("zlib 2", 2), other("zlib 2", 9)]
    monkeypatch.setattr(png, "_WRITER", -1)
    known.append(png.revision())
    assert len(set(known)) == len(known)


def test_the_revision_is_the_same_in_every_process():
    code = "from rae_serve import png; print(png.REVISION)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60).strip() == png.REVISION
