"""The JSON bodies of requests and responses."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rae_serve.arrays import MAX_INTEGER
from rae_serve.engine import MAX_STRENGTH, MAX_TEMPERATURE
from rae_serve.manifest import Manifest

Seed = Annotated[int, Path(ge=0, le=MAX_INTEGER, description="Of the noise.")]
Index = Annotated[int, Path(ge=0, le=MAX_INTEGER, description="The row of the seed.")]
PictureFormat = Literal["png", "webp", "jpeg", "npy", "zip", "json"]
WalkFormat = Literal["png", "webp", "jpeg", "npy", "json", "gif", "webp-animation"]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Vector = Annotated[list[Number], Field(min_length=1)]

MODEL: Final = "A model's name; the default model where it is left out."
_PICTURE: Final = "png, webp (lossless), jpeg: one picture"
_MORE: Final = "npy: uint8 [N, H, W, C]; json: base64 PNGs"


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description=MODEL)


class SampleRequest(_Request):
    """Rows offset … offset + n − 1 of a seed, as images."""

    n: int = Field(1, ge=1, strict=True, description="How many images.")
    offset: int = Field(0, ge=0, le=MAX_INTEGER, strict=True, description="The first row.")
    seed: int | None = Field(None, ge=0, le=MAX_INTEGER, strict=True, description="Drawn where it is left out.")
    temperature: Number = Field(1.0, ge=0.0, le=MAX_TEMPERATURE, description="A factor on the noise.")
    format: PictureFormat = Field(
        "png", description=f"{_PICTURE}, for n > 1 a grid of ⌈√n⌉ columns; {_MORE}; zip: a PNG for each."
    )


class SampleResponse(BaseModel):
    """The answer in JSON."""

    model: str
    digest: str
    seed: int
    offset: int
    images: list[str] = Field(description="PNG files, base64.")


class DecodeRequest(_Request):
    """Latents to be made into images."""

    latents: list[Vector] = Field(min_length=1, description="One row of latent_dim numbers an image.")
    format: PictureFormat = Field("png", description=f"{_PICTURE}, or a grid of several; {_MORE}; zip: a PNG each.")


class ImagesRequest(_Request):
    """Pictures of any size, PNG, JPEG, WebP, GIF, BMP or TIFF; the model's preprocessing is applied to each."""

    images: list[str] = Field(min_length=1, description="Picture files, base64.")
    format: str | None = Field(None, description="As the parameter of the same name.")


class LatentsResponse(BaseModel):
    """Latents, and which of the trained dimensions their entries are."""

    model: str
    digest: str
    active: list[int] = Field(description="The trained dimension of every entry of a latent.")
    latents: list[list[float]]


class ImagesResponse(BaseModel):
    """Images in JSON."""

    model: str
    digest: str
    images: list[str] = Field(description="PNG files, base64.")


class Point(BaseModel):
    """A place in latent space: of a seed and its row, of a picture, or itself. Exactly one of the three."""

    model_config = ConfigDict(extra="forbid")

    seed: int | None = Field(None, ge=0, le=MAX_INTEGER, strict=True)
    index: int = Field(0, ge=0, le=MAX_INTEGER, strict=True, description="The row of the seed.")
    latent: Vector | None = Field(None, description="latent_dim numbers.")
    image: str | None = Field(None, description="A picture file, base64.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("seed", "latent", "image") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"must have one of seed, latent and image; it has {' and '.join(given) or 'none'}")
        return self


class InterpolateRequest(_Request):
    """The way between two points."""

    start: Point
    end: Point
    steps: int = Field(8, ge=1, strict=True, description="How many images, both ends included.")
    space: Literal["latent", "noise"] = Field(
        "latent", description="noise: before the prior, every step a likely sample; both points must be seeds."
    )
    path: Literal["linear", "spherical"] = Field(
        "linear", description="spherical: an arc, about 0 in noise, about the training latents' mean in latent space."
    )
    format: WalkFormat = Field(
        "png", description=f"{_PICTURE}, a strip from start to end; {_MORE}; gif, webp-animation: animated."
    )


class EditRequest(_Request):
    """A point moved along an attribute's direction."""

    point: Point
    attribute: str = Field(description="One of the model's, as its manifest lists them.")
    strengths: list[Annotated[Number, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH)]] = Field(
        [-1.0, 0.0, 1.0], min_length=1, description="In distances between the attribute's two classes."
    )
    format: WalkFormat = Field(
        "png", description=f"{_PICTURE}, a strip in the order of strengths; {_MORE}; gif, webp-animation: animated."
    )


class WalkResponse(ImagesResponse):
    """Images in JSON, with the latents that they were made from."""

    latents: list[list[float]]


class ModelSummary(BaseModel):
    """A model in the list."""

    name: str
    digest: str
    kind: str
    default: bool = Field(description="Whether it is used where a request names none.")
    shape: tuple[int, int, int] = Field(description="Height, width and channels of its images.")
    latent_dim: int
    noise_dim: int


class ModelList(BaseModel):
    """All models."""

    models: list[ModelSummary]


class ModelDetail(BaseModel):
    """A model and its manifest."""

    name: str
    manifest: Manifest
