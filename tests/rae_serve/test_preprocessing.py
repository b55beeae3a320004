"""Every kind of picture, against an implementation that was written from docs/preprocessing.md."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image

from rae_serve import golden
from rae_serve.golden import COLOUR, COLOUR_ALPHA, GREY, GREY_ALPHA, PALETTE, png_file
from rae_serve.preprocessing import Preprocessing, read_picture
from tests.rae_serve import pixel_rules

RNG = np.random.default_rng(0)
MODES = ("L", "RGB")
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
# (height, width): right, tiny, odd aspects, and large ones, for models of 28 × 28 and 24 × 40.
SIZES = [(28, 28), (1, 1), (1, 7), (3, 2), (61, 28), (28, 61), (101, 36), (9, 7), (64, 40), (40, 64), (61, 61),
         (24, 40), (400, 13), (13, 400), (701, 530), (530, 701), (1200, 90)]  # fmt: skip


def samples(height: int, width: int, channels: int, bits: int = 8) -> np.ndarray:
    return RNG.integers(0, 2**bits, (height, width, channels))


def check(data: bytes, wanted: np.ndarray, orientation: int = 1, **rules: object) -> None:
    """Assert that a file is prepared as the rules say, for both modes; `wanted` are its samples in 8 bits."""
    for mode in MODES:
        preprocessing = Preprocessing(**{"height": 28, "width": 28, "background": 77, **rules, "mode": mode})
        given = preprocessing(read_picture(data))
        assert np.array_equal(given, pixel_rules.prepared(wanted, preprocessing, orientation))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", ["none", "center", 28, 31])
def test_every_size_and_crop(size, crop):
    pixels = samples(*size, 3)
    check(png_file(pixels, COLOUR), pixels, crop=crop)
    check(png_file(pixels, COLOUR), pixels, crop=crop, height=24, width=40)


@pytest.mark.parametrize("resize", FILTERS)
def test_every_filter(resize):
    for size, crop in itertools.product([(61, 28), (9, 7), (29, 31), (200, 301)], ["none", "center"]):
        pixels = samples(*size, 1)
        check(png_file(pixels, GREY), pixels, resize=resize, crop=crop)


def test_a_box_of_the_right_size_between_two_pixels_is_resampled():
    pixels = samples(28, 61, 1)
    prepared = Preprocessing(height=28, width=28, mode="L")(read_picture(png_file(pixels, GREY)))
    assert not np.array_equal(prepared, pixels[:, 16:44])
    assert not np.array_equal(prepared, pixels[:, 17:45])
    check(png_file(pixels, GREY), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation):
    pixels = samples(31, 20, 3)
    check(png_file(pixels, COLOUR, orientation=orientation), pixels, orientation)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_every_depth_of_grey_with_and_without_a_transparent_one(depth):
    pixels = samples(40, 33, 1, depth)
    in_8_bits = pixel_rules.in_8_bits(pixels, depth)
    check(png_file(pixels, GREY, depth=depth), in_8_bits)
    key = pixels[3, 3]
    opaque = np.where(pixels == key, 0, 255) if depth < 16 else np.full_like(pixels, 255)
    with_alpha = np.concatenate([in_8_bits, opaque], axis=2)
    check(png_file(pixels, GREY, depth=depth, transparency=struct.pack(">H", *key)), with_alpha)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(("colour_type", "channels"), [(GREY_ALPHA, 2), (COLOUR, 3), (COLOUR_ALPHA, 4)])
def test_every_depth_of_colour_and_alpha(depth, colour_type, channels):
    pixels = samples(40, 33, channels, depth)
    check(png_file(pixels, colour_type, depth=depth), pixel_rules.in_8_bits(pixels, depth))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour(depth):
    pixels = samples(30, 33, 3, depth) % 7  # so few colours that 16-bit ones look like 8-bit ones
    key = (3, 4, 5)
    pixels[:10] = key
    in_8_bits = pixel_rules.in_8_bits(pixels, depth)
    clear = (pixels == key).all(axis=2, keepdims=True) if depth == 8 else False
    with_alpha = np.concatenate([in_8_bits, np.where(clear, 0, np.full_like(pixels[..., :1], 255))], axis=2)
    check(png_file(pixels, COLOUR, depth=depth, transparency=struct.pack(">HHH", *key)), with_alpha)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [0, 1, 2])
def test_palettes_with_and_without_alpha(depth, alphas):
    pixels = samples(30, 33, 1, depth)
    colours = RNG.integers(0, 256, (2**depth, 4))
    colours[alphas:, 3] = 255
    palette, transparency = (part.astype(np.uint8).tobytes() for part in (colours[:, :3], colours[:alphas, 3]))
    data = png_file(pixels, PALETTE, depth=depth, palette=palette, transparency=transparency)
    check(data, colours[pixels[..., 0]])


@pytest.mark.parametrize("extension", ["TIFF", "GIF", "BMP", "WEBP"])
def test_other_lossless_formats(extension):
    pixels = samples(50, 37, 3)
    if extension == "GIF":  # which has 256 colours
        pixels = pixels[..., :1].repeat(3, axis=2)
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels.astype(np.uint8))
    (picture.convert("L") if extension == "GIF" else picture).save(buffer, extension, lossless=True)
    check(buffer.getvalue(), pixels)


def test_the_first_frame_of_an_animation():
    pixels = samples(30, 30, 1)
    frames = [Image.fromarray(grey.astype(np.uint8)[..., 0]) for grey in (pixels, 255 - pixels)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    check(buffer.getvalue(), pixels)


def test_inks():
    pixels = samples(40, 33, 4)
    buffer = io.BytesIO()
    Image.frombytes("CMYK", (33, 40), pixels.astype(np.uint8).tobytes()).save(buffer, "TIFF")
    check(buffer.getvalue(), pixel_rules.from_inks(pixels))


@pytest.mark.parametrize("chunk", [(b"gAMA", struct.pack(">I", 100_000)), (b"sRGB", b"\0"),
                                   (b"cHRM", struct.pack(">8I", *[30_000] * 8))])  # fmt: skip
def test_colour_spaces_are_ignored(chunk, monkeypatch):
    pixels = samples(31, 20, 3)
    container = golden.png.container
    monkeypatch.setattr(
        golden.png, "container", lambda chunks: container([*(got := list(chunks))[:1], chunk, *got[1:]])
    )
    data = png_file(pixels, COLOUR)
    assert chunk[0] in data
    check(data, pixels)
