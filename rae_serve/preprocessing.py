"""Preprocessing: read a picture file, and bring any picture to the shape of a model's images."""

from __future__ import annotations

import io
import warnings
from typing import Annotated, Final, Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
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


class Preprocessing(BaseModel):
    """The steps from any picture to uint8 [height, width, channels].

    In this order: (1) rotate or mirror the picture as its EXIF orientation says; (2) put transparent pixels on a grey
    `background`; (3) convert to `mode` (L is ITU-R 601-2 luma); (4) crop; (5) resize with the Pillow filter named by
    `resize`, unless the size is right already.

    `crop` is one of: "none", which stretches the whole picture to the shape; "center", the largest centred box with
    the aspect ratio of the shape; or a number, the side of a centred square in pixels. A picture smaller than that
    square is cropped as by "center".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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
        if not self.keeps_size(*picture.size):
            box = self._crop_box(*picture.size)
            picture = picture.resize((self.width, self.height), Image.Resampling[self.resize.upper()], box=box)
        return np.asarray(picture, dtype=np.uint8).reshape(self.shape)

    def keeps_size(self, width: int, height: int) -> bool:
        """Return whether an upright picture of this size is neither cropped nor resized."""
        return (width, height) == (self.width, self.height) and self._crop_box(width, height) == (0, 0, width, height)

    def _in_mode(self, picture: Image.Image) -> Image.Image:
        if picture.mode.startswith("I;16") or picture.mode == "I":
            # Pillow would clip 16-bit greys at 255 instead of scaling them.
            greys = np.asarray(picture, dtype=np.int64).clip(0, 65535)
            picture = Image.fromarray((greys // 257).astype(np.uint8))
        if picture.mode in _FIRST_CONVERT_TO:
            picture = picture.convert(_FIRST_CONVERT_TO[picture.mode])
        if picture.has_transparency_data:
            background = Image.new("RGBA", picture.size, (self.background,) * 3 + (255,))
            picture = Image.alpha_composite(background, picture.convert("RGBA"))
        return picture if picture.mode == self.mode else picture.convert(self.mode)

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


def read_picture(data: bytes, field: str = "image", max_pixels: int = 50_000_000) -> Image.Image:
    """Decode a PNG, JPEG, WebP, GIF, BMP or TIFF file.

    Args:
        data: The bytes of the file.
        field: Name of the input, for the error.
        max_pixels: The most pixels that the picture may have. The header is checked before pixels are decoded.

    Raises:
        InvalidInput: The bytes are no picture or are truncated, or the picture has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            if picture.width * picture.height > max_pixels:
                problem = f"{picture.width} × {picture.height} pixels are more than the limit of {max_pixels} pixels"
                raise InvalidInput(field, problem)
            picture.load()
        if picture.mode == "F":  # the range of the pixels is unknown; Pillow would clip them to [0, 255]
            raise InvalidInput(field, "has floating-point pixels; save it with 8 or 16 bits per channel")
    except InvalidInput:
        raise
    except UnidentifiedImageError:
        raise InvalidInput(field, f"is not a readable picture (none of {', '.join(FORMATS)})") from None
    except Exception as error:  # its type depends on the format and the damage
        raise InvalidInput(field, f"is not a readable picture ({error})") from None
    return picture


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return the (width, height) of the upright picture, without decoding pixels."""
    return picture.size[::-1] if _transposition(picture) in _SWAPS_SIDES else picture.size


def _upright(picture: Image.Image) -> Image.Image:
    """Undo the EXIF orientation. Pillow's exif_transpose fails on metadata that it cannot read or write again."""
    transposition = _transposition(picture)
    return picture if transposition is None else picture.transpose(transposition)


def _transposition(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT_BY.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # of many types; a picture with damaged metadata is still a picture
        return None
