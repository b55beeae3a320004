"""Preprocessing: read a picture file, and bring any picture to the shape of a model's images."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, BinaryIO, Final, Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput

# Changes when a picture may give other pixels than before.
REVISION: Final = 2
# The most pixels of a picture. Users trust their own files, so this is the most that Pillow opens; the server's
# setting is lower.
MAX_FILE_PIXELS: Final = 178_000_000
# The most pixels between the two steps of resampling, unless the picture itself has more: a picture one pixel wide
# would otherwise need gigabytes.
_MAX_PIXELS_BETWEEN: Final = 2**25
_SIXTEEN_BITS: Final = "rae-serve: 16 bits"  # key in the info of a picture whose file has 16 bits per channel or more
# The transposition that undoes each EXIF orientation. Orientation 1 is upright.
_UPRIGHT_BY: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES: Final = tuple(_UPRIGHT_BY[orientation] for orientation in (5, 6, 7, 8))
# Pillow converts these modes to a single other mode only.
_FIRST_CONVERT_TO: Final = {"LAB": "RGB", "La": "LA"}


def _formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats to read. AVIF needs Pillow 11.3, and HEIF the package pillow-heif."""
    formats = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]
    if "avif" in features.get_supported():
        formats.append("AVIF")
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats.append("HEIF")
    return tuple(formats)


FORMATS: Final = _formats()


class Preprocessing(BaseModel):
    """The steps from any picture to uint8 [height, width, channels].

    In this order: (1) rotate or mirror the picture as its EXIF orientation says; (2) reduce 16 bits to the higher 8;
    (3) put transparent pixels on a grey `background`; (4) convert to `mode` (L is ITU-R 601-2 luma); (5) resample the
    box that `crop` chooses with the filter `resize`, first across, then down. docs/preprocessing.md specifies these
    steps to the bit.

    `crop` is one of: "none", which stretches the whole picture to the shape; "center", the largest centred box with
    the aspect ratio of the shape; or a number, the side of a centred square in pixels. A picture smaller than that
    square is cropped as by "center".
    """

    # Unknown fields are ignored and kept, as in every part of a manifest.
    model_config = ConfigDict(extra="allow", frozen=True)

    height: PositiveInt
    width: PositiveInt
    mode: Literal["L", "RGB"]
    crop: Literal["none", "center"] | PositiveInt = "center"
    resize: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bicubic"
    background: Annotated[int, Field(ge=0, le=255)] = 255

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image: (height, width, channels)."""
        return self.height, self.width, len(self.mode)

    def __call__(self, picture: Image.Image) -> Pixels:
        """Return a picture as uint8 [height, width, channels]."""
        picture = self._in_mode(_upright(picture))
        width, height = picture.size
        if self.width * height > max(width * height, _MAX_PIXELS_BETWEEN):
            problem = f"{width} × {height} pixels are too tall for an image {self.width} wide; cut the picture"
            raise InvalidInput("image", problem)
        left, top, right, bottom = self._crop_box(width, height)
        kernel = Image.Resampling[self.resize.upper()]
        # Two calls, because the order in which one call resamples the two axes depends on the version of Pillow.
        across = picture.resize((self.width, height), kernel, box=(left, 0, right, height))
        prepared = across.resize((self.width, self.height), kernel, box=(0, top, self.width, bottom))
        return np.asarray(prepared, dtype=np.uint8).reshape(self.shape)

    def keeps_size(self, width: int, height: int) -> bool:
        """Return whether an upright picture of this size is neither cropped nor resized."""
        return (width, height) == (self.width, self.height) and self._crop_box(width, height) == (0, 0, width, height)

    def _in_mode(self, picture: Image.Image) -> Image.Image:
        picture = _in_8_bits(picture)
        try:
            if picture.mode in _FIRST_CONVERT_TO:
                picture = picture.convert(_FIRST_CONVERT_TO[picture.mode])
            if picture.has_transparency_data:
                background = Image.new("RGBA", picture.size, (self.background,) * 3 + (255,))
                picture = Image.alpha_composite(background, picture.convert("RGBA"))
            return picture if picture.mode == self.mode else picture.convert(self.mode)
        except ValueError as error:
            raise InvalidInput("image", f"has pixels that cannot be converted ({error})") from None

    def _crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        if self.crop == "none":
            return 0, 0, width, height
        if isinstance(self.crop, int) and self.crop <= min(width, height):
            crop_width = crop_height = float(self.crop)
        else:
            scale = min(width / self.width, height / self.height)
            # Rounding may make the box slightly larger than the picture, which Pillow's resize refuses.
            crop_width, crop_height = min(width, self.width * scale), min(height, self.height * scale)
        left, top = (width - crop_width) / 2, (height - crop_height) / 2
        return left, top, left + crop_width, top + crop_height


def read_picture(data: bytes, field: str = "image", max_pixels: int = MAX_FILE_PIXELS) -> Image.Image:
    """Decode a picture file of one of the FORMATS.

    Args:
        data: The bytes of the file.
        field: Name of the input, for the error.
        max_pixels: The most pixels that the picture may have. The header is checked before pixels are decoded.

    Raises:
        InvalidInput: The bytes are no picture or are truncated, or the picture has too many pixels.
    """
    picture = open_picture(io.BytesIO(data), field, max_pixels)
    with _readable(field):
        picture.load()
    return picture


def open_picture(file: BinaryIO, field: str = "image", max_pixels: int = MAX_FILE_PIXELS) -> Image.Image:
    """Read the header of a picture file of one of the FORMATS; its pixels are not decoded yet.

    Args:
        file: The open file, which must stay open until the pixels are decoded.
        field: Name of the input, for the error.
        max_pixels: The most pixels that the picture may have.

    Raises:
        InvalidInput: The file is no picture, or the picture has too many pixels.
    """
    with _readable(field), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            picture = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            file.seek(0)
            raise InvalidInput(field, _unknown_format(file.read(64))) from None
        except Image.DecompressionBombError:  # above a limit of Pillow, which gives no size
            raise InvalidInput(field, f"has more pixels than the limit of {max_pixels} pixels") from None
    if picture.width * picture.height > max_pixels:
        problem = f"{picture.width} × {picture.height} pixels are more than the limit of {max_pixels} pixels"
        raise InvalidInput(field, problem)
    if picture.mode == "F":  # the range of the pixels is unknown; Pillow would clip them to [0, 255]
        raise InvalidInput(field, "has floating-point pixels; save it with 8 or 16 bits per channel")
    # A tile names the layout of its pixels, such as RGB;16B. BGR;16 has 16 bits for all channels together.
    if picture.mode.startswith("I") or re.search("(?<!BGR);16", str(picture.tile)):
        picture.info[_SIXTEEN_BITS] = True
        picture.info.pop("transparency", None)  # a 16-bit colour, which Pillow would look for among 8-bit ones
    elif scaled := re.search("L;([24])'", str(picture.tile)):
        _scale_transparency(picture, int(scaled[1]))
    return picture


def _scale_transparency(picture: Image.Image, bits: int) -> None:
    """Scale the transparent grey of a 2-bit or 4-bit PNG to 8 bits; Pillow scales the pixels only."""
    if "transparency" in picture.info:
        picture.info["transparency"] *= 255 // (2**bits - 1)


def is_dark(picture: Image.Image) -> bool:
    """Return whether a picture from `read_picture` has 16 bits and no value above a quarter of their range.

    Such a picture probably holds the 10, 12 or 14 bits that a camera or a microscope measures.
    """
    if _SIXTEEN_BITS not in picture.info:
        return False
    return int(np.asarray(_in_8_bits(picture).convert("RGB")).max()) < 64


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return the (width, height) of the upright picture, without decoding pixels."""
    if _transposition(picture) not in _SWAPS_SIDES:
        return picture.size
    # Pillow 11 gives the size of a TIFF file as it is after turning, and older ones as it is before, like the tags.
    tags = getattr(picture, "tag_v2", {})
    width, height = picture.size
    return tags.get(ExifTags.Base.ImageLength, height), tags.get(ExifTags.Base.ImageWidth, width)


def _upright(picture: Image.Image) -> Image.Image:
    """Undo the EXIF orientation. Pillow's exif_transpose fails on metadata that it cannot read or write again."""
    picture.load()  # by which Pillow turns a TIFF file upright, and removes its orientation
    transposition = _transposition(picture)
    return picture if transposition is None else picture.transpose(transposition)


def _transposition(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT_BY.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # of many types; a picture with damaged metadata is still a picture
        return None


def _in_8_bits(picture: Image.Image) -> Image.Image:
    """Reduce 16-bit greys to their higher 8 bits, as Pillow does with 16-bit colours. Keep any other picture."""
    if not picture.mode.startswith("I"):
        return picture
    greys = np.asarray(picture, dtype=np.int64).clip(0, 65535)
    return Image.fromarray((greys >> 8).astype(np.uint8))


@contextmanager
def _readable(field: str) -> Iterator[None]:
    """Raise InvalidInput, naming `field`, for any error of Pillow on a damaged file."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:  # its type depends on the format and the damage
        raise InvalidInput(field, f"is not a readable picture ({error})") from None


def _unknown_format(start: bytes) -> str:
    """Say what is wrong with a file that is in none of the FORMATS, by its first bytes."""
    if start[4:8] == b"ftyp":  # brands follow, of which HEIF and AVIF have their own
        if any(brand in start[8:] for brand in (b"avif", b"avis")):
            return "is an AVIF picture, which needs Pillow 11.3 or newer"
        if any(brand in start[8:] for brand in (b"hei", b"hev", b"mif1")):
            return "is a HEIC picture, which needs a plugin of Pillow: pip install pillow-heif"
    return f"is not a readable picture (none of {', '.join(FORMATS)})"
