"""The schemas of JSON requests and responses."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from rae_serve import interpolation
from rae_serve.arrays import MAX_INTEGER
from rae_serve.engine import MAX_STRENGTH, MAX_TEMPERATURE
from rae_serve.images import FRAME_RATE
from rae_serve.manifest import Manifest


def _check_decimal(text: str) -> str:
    if not re.fullmatch("0|[1-9][0-9]*", text):
        raise PydanticCustomError("decimal", "must be an integer in plain decimal digits")
    return text


# An integer in an address has one form only, so that one image has one address.
_Decimal = Annotated[int, BeforeValidator(_check_decimal)]
Seed = Annotated[_Decimal, Path(ge=0, le=MAX_INTEGER, description="The seed of the noise.")]
Index = Annotated[_Decimal, Path(ge=0, le=MAX_INTEGER, description="The row of the seed, from 0.")]
PictureFormat = Literal["png", "webp", "jpeg", "npy", "zip", "json"]
WalkFormat = Literal["png", "webp", "jpeg", "npy", "json", "gif", "webp-animation"]
Integer = Annotated[int, Field(ge=0, le=MAX_INTEGER, strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Vector = Annotated[list[Number], Field(min_length=1)]

MODEL: Final = "The name of a model. Without it, the default model is used."
_GRID: Final = "png, webp (lossless), jpeg: one picture; several images become a grid of ⌈√n⌉ columns"
_STRIP: Final = "png, webp (lossless), jpeg: one picture, with the images side by side"
_ARRAYS: Final = "npy: a uint8 array [N, H, W, C]; json: PNG files in base64"
_GRID_FORMATS: Final = f"{_GRID}; {_ARRAYS}; zip: one PNG file per image."
_STRIP_FORMATS: Final = f"{_STRIP}; {_ARRAYS}; gif, webp-animation: an animation."


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description=MODEL)


class _Response(BaseModel):
    model: str
    digest: str


class WalkRequest(_Request):
    """The fields of an interpolation and of an edit that say how its images are sent."""

    format: WalkFormat = Field("png", description=_STRIP_FORMATS)
    frame_rate: Number = Field(FRAME_RATE, ge=1, le=50, description="Images per second of an animation.")
    there_and_back: bool = Field(
        False, strict=True, description="Whether an animation shows its images backwards after the last one."
    )


class SampleRequest(_Request):
    """Ask for the images of the rows offset … offset + n − 1 of a seed."""

    n: int = Field(1, ge=1, strict=True, description="How many images.")
    offset: Integer = Field(0, description="The first row of the seed.")
    seed: Integer | None = Field(None, description="The seed of the noise; drawn at random by default.")
    temperature: Number = Field(
        1.0, ge=0, le=MAX_TEMPERATURE, description="Factor on the noise. Higher: more varied, less likely images."
    )
    format: PictureFormat = Field("png", description=_GRID_FORMATS)


class SampleResponse(_Response):
    """The images of a seed, in JSON."""

    seed: int
    offset: int
    images: list[str] = Field(description="PNG files in base64.")


class DecodeRequest(_Request):
    """Ask for the images of latents."""

    latents: list[Vector] = Field(min_length=1, description="One latent per image, of latent_dim numbers each.")
    format: PictureFormat = Field("png", description=_GRID_FORMATS)


class ImagesRequest(_Request):
    """Send pictures of any size: PNG, JPEG, WebP, GIF, BMP or TIFF. The model's preprocessing is applied to each."""

    images: list[str] = Field(min_length=1, description="Picture files in base64.")
    format: str | None = Field(None, description="The same as the query parameter `format`, and used instead of it.")


class LatentsResponse(_Response):
    """Latents, in JSON."""

    active: list[int] = Field(description="For each entry of a latent, the number of its dimension in training.")
    latents: list[list[float]]


class ImagesResponse(_Response):
    """Images, in JSON."""

    images: list[str] = Field(description="PNG files in base64.")


class Point(BaseModel):
    """A point in latent space: exactly one of a seed with a row, a latent, or a picture."""

    model_config = ConfigDict(extra="forbid")

    seed: Integer | None = Field(None, description="The seed of the noise.")
    index: Integer = Field(0, description="The row of the seed.")
    temperature: Number = Field(1.0, ge=0, le=MAX_TEMPERATURE, description="Factor on the noise of the seed.")
    latent: Vector | None = Field(None, description="The latent itself, latent_dim numbers.")
    image: str | None = Field(None, description="A picture file in base64, to be encoded.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("seed", "latent", "image") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"must have one of seed, latent and image; it has {' and '.join(given) or 'none'}")
        return self


class InterpolateRequest(WalkRequest):
    """Ask for the images between two points."""

    start: Point
    end: Point
    steps: int = Field(8, ge=1, strict=True, description="How many images, both ends included.")
    space: interpolation.Space = Field(
        "latent", description="latent: interpolate between latents; noise: between the noises of two seeds."
    )
    path: interpolation.Path = Field(
        "linear",
        description="linear: a straight line; spherical: an arc, around 0 in noise space and around the mean of the "
        "training latents in latent space. A spherical path in noise space keeps every step as likely as the ends.",
    )


class EditRequest(WalkRequest):
    """Ask for the images of a point that is moved along the direction of an attribute."""

    point: Point
    attribute: str = Field(description="The name of an attribute in the model's manifest, or of its opposite.")
    strengths: list[Annotated[Number, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH)]] = Field(
        [-1.0, 0.0, 1.0],
        min_length=1,
        description="How far to move, one image per strength. 1 is the distance from the mean of the images without "
        "the attribute to the mean of those with it; negative values move away from the attribute.",
    )


class WalkResponse(ImagesResponse):
    """Images and their latents, in JSON."""

    latents: list[list[float]]


class ModelSummary(BaseModel):
    """A model in the list of models."""

    name: str
    digest: str
    kind: str
    default: bool = Field(description="Whether requests that name no model use this one.")
    shape: tuple[int, int, int] = Field(description="Height, width and channels of the model's images.")
    latent_dim: int
    noise_dim: int


class ModelList(BaseModel):
    """All models."""

    models: list[ModelSummary]
    default: str = Field(description="The name of the default model, even if that model is not loaded.")
    default_reason: str = Field(description="Why this model is the default.")


class ModelDetail(BaseModel):
    """A model and its manifest."""

    name: str
    manifest: Manifest
