"""The one preprocessing that brings any picture to a model's shape."""

from __future__ import annotations

import io
import warnings
from typing import Annotated, Final, Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput

_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# By the orientation of Exif: what undoes it.
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE: Final = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))
# Modes that Pillow converts to one mode alone.
_BY_WAY_OF: Final = {"LAB": "RGB", "La": "LA"}


class Preprocessing(BaseModel):
    """The steps from any picture to uint8 [height, width, channels], in this order.

    Turn it as its EXIF orientation says; lay transparent parts over a grey `background`; convert to `mode`
    (L is ITU-R 601-2 luma); crop; resize with Pillow's filter of the name, unless the size is right already.
    `crop` is "none" (stretch to the shape), "center" (the largest centred box of the shape's aspect), or the
    side in pixels of a centred square; where a picture is smaller than that square, as "center".
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
        """(height, width, channels)."""
        return self.height, self.width, len(self.mode)

    def __call__(self, picture: Image.Image) -> Pixels:
        """uint8 [height, width, channels] of one picture."""
        picture = self._in_mode(_upright(picture))
        if not self.keeps(*picture.size):
            box = self._crop_box(*picture.size)
            picture = picture.resize((self.width, self.height), Image.Resampling[self.resize.upper()], box=box)
        return np.asarray(picture, dtype=np.uint8).reshape(self.shape)

    def keeps(self, width: int, height: int) -> bool:
        """Whether upright pictures of this size are neither cropped nor resized."""
        return (width, height) == (self.width, self.height) and self._crop_box(width, height) == (0, 0, width, height)

    def _in_mode(self, picture: Image.Image) -> Image.Image:
        if picture.mode.startswith("I;16") or picture.mode == "I":
            # Pillow would clip 16-bit greys at 255 instead of scaling them.
            greys = np.asarray(picture, dtype=np.int64).clip(0, 65535)
            picture = Image.fromarray((greys // 257).astype(np.uint8))
        if picture.mode in _BY_WAY_OF:
            picture = picture.convert(_BY_WAY_OF[picture.mode])
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
            # Rounding may leave one larger by a hair, which resizing refuses.
            crop_width, crop_height = min(width, self.width * scale), min(height, self.height * scale)
        left, top = (width - crop_width) / 2, (height - crop_height) / 2
        return left, top, left + crop_width, top + crop_height


def read_picture(data: bytes, field: str = "image", max_pixels: int = 50_000_000) -> Image.Image:
    """A picture from the bytes of a PNG, JPEG, WebP, GIF, BMP or TIFF file, decoded whole.

    Raises InvalidInput, naming `field`, where the bytes are no picture, are cut short, or hold more than
    `max_pixels`, which the header is asked before anything is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=_FORMATS)
            if picture.width * picture.height > max_pixels:
                problem = f"{picture.width} × {picture.height} pixels are more than the limit of {max_pixels}"
                raise InvalidInput(field, problem)
            picture.load()
        if picture.mode == "F":  # Pillow would clip them at 0 and 255
            raise InvalidInput(field, "has floating-point pixels, of an unknown range; 8 or 16 bits will do")
    except InvalidInput:
        raise
    except UnidentifiedImageError:
        raise InvalidInput(field, f"is no readable picture (none of {', '.join(_FORMATS)})") from None
    except Exception as error:  # of many kinds, by format and damage
        raise InvalidInput(field, f"is no readable picture ({error})") from None
    return picture


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) of the picture as it was held, without decoding it."""
    return picture.size[::-1] if _turn(picture) in _ON_ITS_SIDE else picture.size


def _upright(picture: Image.Image) -> Image.Image:
    """The picture as it was held. ImageOps.exif_transpose fails on metadata that it cannot read or write again."""
    turn = _turn(picture)
    return picture if turn is None else picture.transpose(turn)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # of many kinds; a picture whose metadata is damaged is a picture all the same
        return None
