from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from rae_serve import images
from rae_serve.errors import InvalidInput
from rae_serve.preprocessing import FORMATS, Preprocessing, is_dark, open_picture, read_picture, upright_size


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def ramp(width: int, height: int, mode: str = "L") -> Image.Image:
    pixels = np.add.outer(np.arange(height), np.arange(width)) % 256
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def test_a_picture_of_the_right_shape_is_left_as_it_is():
    picture = ramp(12, 8)
    assert np.array_equal(Preprocessing(height=8, width=12, mode="L")(picture)[..., 0], np.asarray(picture))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("crop", ["none", "center", 16, 400])
@pytest.mark.parametrize("target", ["L", "RGB"])
def test_any_picture_comes_to_the_shape(mode, crop, target):
    base = ramp(40, 30)
    picture = Image.fromarray(np.asarray(base).astype(np.uint16) * 257) if mode == "I;16" else base.convert(mode)
    prepared = Preprocessing(height=8, width=8, mode=target, crop=crop)(picture)
    assert prepared.shape == (8, 8, len(target))
    assert prepared.dtype == np.uint8


def test_sixteen_bit_greys_are_scaled_not_clipped():
    deep = Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
    assert (Preprocessing(height=4, width=4, mode="L")(deep) == 128).all()


def test_transparency_shows_the_background():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (Preprocessing(height=4, width=4, mode="RGB", background=40)(clear) == 40).all()


def test_center_crop_keeps_the_aspect_and_the_middle():
    wide = Image.new("L", (30, 10), 0)
    wide.paste(200, (10, 0, 20, 10))
    assert (Preprocessing(height=10, width=10, mode="L")(wide) == 200).all()
    assert not (Preprocessing(height=10, width=10, mode="L", crop="none")(wide) == 200).all()


def test_exif_orientation_is_applied():
    picture = ramp(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180°
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    turned = Preprocessing(height=8, width=8, mode="L")(read_picture(buffer.getvalue()))
    assert np.array_equal(turned[..., 0], np.asarray(picture)[::-1, ::-1])


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff_is_undone_once(orientation, compression):
    """Pillow turns a TIFF file itself when it decodes the pixels, and other formats not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored, png_file = ramp(12, 8, "RGB"), io.BytesIO()
    stored.putpixel((0, 0), (255, 0, 0))
    stored.save(png_file, "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(png_file))
    tiff = io.BytesIO()
    stored.save(tiff, "TIFF", exif=exif, compression=compression)
    assert upright_size(open_picture(tiff)) == upright.size
    assert upright_size(read_picture(tiff.getvalue())) == upright.size
    preprocessing = Preprocessing(height=upright.height, width=upright.width, mode="RGB")
    for picture in (read_picture(tiff.getvalue()), Image.open(tiff)):
        assert np.array_equal(preprocessing(picture), np.asarray(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone_as_pillow_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save(buffer, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue()))))
    prepared = Preprocessing(height=8, width=8, mode="L")(read_picture(buffer.getvalue()))
    assert np.array_equal(prepared[..., 0], upright)


def test_a_picture_whose_metadata_are_damaged_is_a_picture():
    buffer = io.BytesIO()
    ramp(8, 8).save(buffer, "PNG", exif=b"MM\0\xff\0\0\0\x08")
    prepared = Preprocessing(height=8, width=8, mode="L")(read_picture(buffer.getvalue()))
    assert np.array_equal(prepared[..., 0], np.asarray(ramp(8, 8)))


@pytest.mark.parametrize("crop", ["center", "none"])
def test_every_size_can_be_prepared(crop):
    prepare = Preprocessing(height=28, width=28, mode="L", crop=crop)
    for side in (1, 2, 29, 58, 116, 123, 225):  # 28 · (29 / 28) is more than 29
        for size in ((side, side), (side, 300), (300, side)):
            assert prepare(Image.new("L", size, 9)).max() == 9


def test_a_picture_too_tall_to_be_resampled_is_refused_and_a_wide_one_not():
    prepare = Preprocessing(height=28, width=28, mode="L")
    with pytest.raises(InvalidInput, match="image: 1 × 2000000 pixels are too tall for an image 28 wide"):
        prepare(Image.new("L", (1, 2_000_000), 9))
    assert prepare(Image.new("L", (2_000_000, 1), 9)).max() == 9


@pytest.mark.parametrize("data", [b"", b"no picture", png(ramp(64, 64))[:-40], png(ramp(64, 64))[:60]])
def test_what_is_no_whole_picture_is_refused(data):
    with pytest.raises(InvalidInput, match=r"^photo: is not a readable picture"):
        read_picture(data, "photo")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_cielab_tiff_is_a_picture_too(mode):
    buffer = io.BytesIO()
    Image.new("LAB", (8, 8), (128, 128, 128)).save(buffer, "TIFF")
    prepared = Preprocessing(height=8, width=8, mode=mode)(read_picture(buffer.getvalue()))
    assert (abs(prepared.astype(int) - 119) <= 2).all()  # L* = 50 is 119 in sRGB


def test_floating_point_pixels_are_refused_and_not_clipped_to_black():
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(buffer, "TIFF")
    with pytest.raises(InvalidInput, match="photo: has floating-point pixels"):
        read_picture(buffer.getvalue(), "photo")


def test_grey_with_premultiplied_alpha_lies_over_the_background():
    premultiplied = Image.new("LA", (8, 8), (100, 128)).convert("La")
    prepared = Preprocessing(height=8, width=8, mode="L", background=0)(premultiplied)
    assert (abs(prepared.astype(int) - 50) <= 1).all()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_size_is_that_of_the_picture_as_it_was_held(orientation):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("L", (12, 8)).save(buffer, "JPEG", exif=exif)
    assert upright_size(Image.open(buffer)) == ((12, 8) if orientation in (1, 3) else (8, 12))


def test_the_formats_that_are_missing_are_named():
    def start(*brands: str) -> bytes:
        return b"\0\0\0\x18ftyp" + "".join(brands).encode() + bytes(200)

    with pytest.raises(InvalidInput, match=rf"photo: is not a readable picture \(none of {', '.join(FORMATS)}\)"):
        read_picture(b"%PDF-1.7", "photo")
    if "HEIF" not in FORMATS:
        for brands in (("heic", "mif1"), ("heix",), ("mif1", "\0\0\0\0", "heic"), ("hevc",)):
            with pytest.raises(InvalidInput, match=r"is a HEIC picture, .* pip install pillow-heif"):
                read_picture(start(*brands), "photo")
    if "AVIF" not in FORMATS:
        with pytest.raises(InvalidInput, match=r"is an AVIF picture, which needs Pillow 11\.3"):
            read_picture(start("avif", "mif1"), "photo")


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow was built without AVIF")
def test_an_avif_picture_is_read_and_a_damaged_one_refused():
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 30)).save(buffer, "AVIF")
    prepared = Preprocessing(height=8, width=8, mode="RGB")(read_picture(buffer.getvalue()))
    assert (abs(prepared.astype(int) - (200, 30, 30)) <= 4).all()
    damaged = buffer.getvalue().replace(b"av01", b"xx01")
    with pytest.raises(InvalidInput, match="photo: is not a readable picture"):
        open_picture(io.BytesIO(damaged), "photo")


def test_a_heic_picture_is_read_where_the_plugin_is_installed(tmp_path):
    """A stand-in for pillow-heif, which says by the name of its format that it has read the file."""
    (tmp_path / "pillow_heif.py").write_text(
        "from PIL import Image, ImageFile\n"
        "class Heif(ImageFile.ImageFile):\n"
        "    format = 'HEIF'\n"
        "    def _open(self):\n"
        "        self._size, self._mode, self.tile = (2, 2), 'L', []\n"
        "    def load(self):\n"
        "        self.im = Image.new('L', self.size, 7).im\n"
        "def register_heif_opener():\n"
        "    Image.register_open('HEIF', Heif, lambda start: start[4:12] == b'ftypheic')\n"
    )
    code = (
        "from rae_serve.preprocessing import Preprocessing, read_picture\n"
        "picture = read_picture(b'\\0\\0\\0\\x18ftypheic' + bytes(99))\n"
        "print(picture.format, Preprocessing(height=2, width=2, mode='L')(picture).max())"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path}
    words = [sys.executable, "-c", code]
    assert subprocess.check_output(words, env=environment, text=True, timeout=60).split() == ["HEIF", "7"]


@pytest.mark.parametrize("largest", [255, 1023, 4095, 16383, 17000, 65535])
@pytest.mark.parametrize("kind", ["grey PNG", "grey TIFF", "big-endian TIFF", "32-bit TIFF"])
def test_fewer_bits_than_the_file_has_are_noticed_and_not_rescaled(kind, largest):
    greys = np.linspace(0, largest, 64).astype(np.uint16).reshape(8, 8)
    buffer = io.BytesIO()
    match kind:
        case "grey PNG":
            Image.fromarray(greys).save(buffer, "PNG")
        case "grey TIFF":
            Image.fromarray(greys).save(buffer, "TIFF")
        case "big-endian TIFF":
            buffer.write(big_endian_tiff(greys))
        case "32-bit TIFF":
            Image.fromarray(greys.astype(np.int32)).save(buffer, "TIFF")
    picture = read_picture(buffer.getvalue())
    assert is_dark(picture) == (largest < 17000)
    assert np.array_equal(Preprocessing(height=8, width=8, mode="L")(picture)[..., 0], greys >> 8)


@pytest.mark.parametrize(("level", "dark"), [(15, True), (200, False)])
def test_fewer_bits_are_noticed_in_colours_too(level, dark):
    """Pillow reads 16-bit colours as their higher bytes."""
    pixels = np.full((4, 4, 3), level * 256, ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    assert is_dark(read_picture(data)) == dark


def test_dark_pictures_of_8_bits_are_no_surprise():
    assert not is_dark(read_picture(png(Image.new("RGB", (8, 8), (5, 5, 5)))))


def big_endian_tiff(greys: np.ndarray) -> bytes:
    """Return 16-bit greys as a big-endian TIFF file, as ImageJ and microscopes write it."""
    height, width = greys.shape
    pixels = greys.astype(">u2").tobytes()
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    entries += struct.pack(">HHII", 279, 4, 1, len(pixels))
    return b"MM\0*" + struct.pack(">I", 8 + len(pixels)) + pixels + struct.pack(">H", 9) + entries + bytes(4)


def test_a_picture_beyond_the_limit_is_refused_by_its_header():
    with pytest.raises(InvalidInput, match="64 × 64 pixels are more"):
        read_picture(png(ramp(64, 64)), max_pixels=4095)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_picture_holds_the_pixels_of_its_image(channels, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, channels), np.uint8)
    picture = images.to_picture(pixels)
    assert picture.mode == mode
    assert np.array_equal(np.asarray(picture).reshape(pixels.shape), pixels)


@pytest.mark.parametrize(("n", "shape"), [(1, (4, 6, 3)), (2, (4, 12, 3)), (5, (8, 18, 3)), (9, (12, 18, 3))])
def test_a_grid_holds_every_image_in_its_cell(n, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 4, 6, 3), dtype=np.uint8)
    grid = images.grid(pixels)
    assert grid.shape == shape
    columns = shape[1] // 6
    for i, image in enumerate(pixels):
        row, column = divmod(i, columns)
        assert np.array_equal(grid[row * 4 : row * 4 + 4, column * 6 : column * 6 + 6], image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("encoding", ["png", "webp"])
def test_lossless_encodings_keep_every_pixel(channels, encoding):
    pixels = np.random.default_rng(1).integers(0, 256, (16, 12, channels), dtype=np.uint8)
    decoded = Image.open(io.BytesIO(images.encode(pixels, encoding)))
    assert np.array_equal(Preprocessing(height=16, width=12, mode="L" if channels == 1 else "RGB")(decoded), pixels)


@pytest.mark.parametrize(("encoding", "side"), [("webp", 16383), ("jpeg", 65500)])
def test_a_picture_too_large_for_its_format_is_refused(encoding, side):
    pixels = np.zeros((1, side + 1, 1), np.uint8)
    assert Image.open(io.BytesIO(images.encode(pixels[:, 1:], encoding))).width == side
    with pytest.raises(InvalidInput, match=f"format: {encoding} has at most {side} pixels a side") as raised:
        images.encode(pixels, encoding)
    assert raised.value.field == "format"


def test_a_zip_is_the_same_bytes_every_time():
    pixels = np.zeros((2, 4, 4, 1), np.uint8)
    data = images.encode_zip(pixels, ["a.png", "b.png"])
    assert data == images.encode_zip(pixels, ["a.png", "b.png"])
    files = zipfile.ZipFile(io.BytesIO(data)).infolist()
    assert [file.filename for file in files] == ["a.png", "b.png"]
    assert {file.date_time for file in files} == {(1980, 1, 1, 0, 0, 0)}


def test_an_animation_goes_there_and_back_without_showing_its_ends_twice():
    pixels = np.arange(0, 250, 60, np.uint8).reshape(5, 1, 1, 1).repeat(8, 1).repeat(8, 2)
    with Image.open(io.BytesIO(images.animate(pixels, "webp", frame_rate=20, there_and_back=True))) as animation:
        frames = []
        for i in range(animation.n_frames):
            animation.seek(i)
            animation.load()
            frames.append((np.asarray(animation.convert("L"))[0, 0], animation.info["duration"]))
    assert frames == [(grey, 50) for grey in (0, 60, 120, 180, 240, 180, 120, 60)]
