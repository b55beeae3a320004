"""The schemas of JSON requests and responses."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from fastapi import Header, Path
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rae_serve import interpolation
from rae_serve.arrays import MAX_INTEGER
from rae_serve.attributes import MIN_IMAGES
from rae_serve.engine import MAX_STRENGTH, MAX_TEMPERATURE
from rae_serve.images import FRAME_RATE
from rae_serve.manifest import Attribute, Manifest


def _check_decimal(text: str) -> str:
    if not re.fullmatch("0|[1-9][0-9]*", text):
        raise PydanticCustomError("decimal", "must be an integer in plain decimal digits")
    return text


def _refuse(value: Any) -> None:
    raise PydanticCustomError("unsupported", "belongs to an extension that this server does not have; leave it out")


# An integer in an address has one form only, so that one image has one address.
_Decimal = Annotated[int, BeforeValidator(_check_decimal)]
Seed = Annotated[_Decimal, Path(ge=0, le=MAX_INTEGER, description="The seed of the noise.")]
Index = Annotated[_Decimal, Path(ge=0, le=MAX_INTEGER, description="The row of the seed, from 0.")]
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
HeaderLength = Annotated[
    Annotated[_Decimal, Field(le=MAX_INTEGER)] | None,
    Header(alias=HEADER_LENGTH, description="The length of the JSON in bytes, if binary data follows it."),
]
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


class AttributeRequest(_Request):
    """Ask for the direction that leads from points without an attribute to points with it."""

    has: list[Point] = Field(min_length=MIN_IMAGES, description="Points whose images have the attribute.")
    lacks: list[Point] = Field(min_length=MIN_IMAGES, description="Points whose images do not have the attribute.")
    keep: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]+$",
        description="A name under which to keep the attribute in the model's bundle, if the operator allows it.",
    )


class AttributeResponse(_Response):
    """A direction in latent space, and how good it is."""

    attribute: Attribute
    doubt: str | None = Field(description="What speaks against the direction; null if nothing does.")
    latents: list[list[float]] = Field(description="The latents of the points, those of `has` first.")
    can_keep: bool = Field(description="Whether the operator allows requests to keep attributes.")


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


# The Open Inference Protocol. Its requests may have fields that only some servers know, so these have no effect here,
# except those of extensions that would change the response.
_Unsupported = Annotated[None, BeforeValidator(_refuse)]
_Name = Annotated[str, Field(max_length=256)]
_MAX_TENSORS: Final = 16  # more than any model has; a longer list is refused before it is read to the end


class _InferenceModel(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        """Leave out what is null: some clients write every field that they do not use as null."""
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class TensorParameters(_InferenceModel):
    """The parameters of an input or output."""

    binary_data_size: Integer | None = Field(
        None, description="The size of the tensor in bytes, if it follows the JSON as binary data."
    )


class InputParameters(TensorParameters):
    """The parameters of an input."""

    shared_memory_region: _Unsupported = Field(None, description="Not supported.")


class OutputParameters(_InferenceModel):
    """The parameters of a requested output."""

    binary_data: bool | None = Field(
        None,
        strict=True,
        description="Whether the output follows the JSON as binary data; by default as binary_data_output says.",
    )
    shared_memory_region: _Unsupported = Field(None, description="Not supported.")
    classification: _Unsupported = Field(None, description="Not supported.")


class InferenceParameters(_InferenceModel):
    """The parameters of an inference request."""

    binary_data_output: bool = Field(
        False, strict=True, description="Whether outputs follow the JSON as binary data, rather than being in it."
    )
    temperature: Number = Field(
        1.0, ge=0, le=MAX_TEMPERATURE, description="Factor on the noise of a model that takes seeds."
    )
    sequence_id: _Unsupported = Field(None, description="Not supported.")


class RequestTensor(_InferenceModel):
    """An input of an inference request."""

    name: _Name
    shape: list[Integer] = Field(max_length=_MAX_TENSORS)
    datatype: _Name
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(
        None, description="The numbers, flat in row-major order or nested like the shape; none with binary data."
    )


class RequestedOutput(_InferenceModel):
    """An output that an inference request asks for."""

    name: _Name
    parameters: OutputParameters = OutputParameters()


class InferenceRequest(_InferenceModel):
    """Run a model of the Open Inference Protocol."""

    id: str | None = Field(None, description="Comes back in the response.")
    parameters: InferenceParameters = InferenceParameters()
    inputs: list[RequestTensor] = Field(min_length=1, max_length=_MAX_TENSORS)
    outputs: list[RequestedOutput] = Field([], max_length=_MAX_TENSORS, description="By default all outputs.")


class ResponseTensor(BaseModel):
    """An output of a model."""

    name: str
    shape: list[int]
    datatype: str
    parameters: TensorParameters | None = None
    data: SkipValidation[list[int | float]] | None = Field(
        None, description="The numbers in row-major order; left out if they follow the JSON as binary data."
    )


class InferenceResponse(BaseModel):
    """The outputs of a model."""

    model_name: str
    model_version: str
    id: str | None = Field(None, description="The id of the request, if it has one.")
    outputs: list[ResponseTensor]


class TensorMetadata(BaseModel):
    """An input or output of a model."""

    name: str
    datatype: str
    shape: list[int] = Field(description="−1 is a dimension of any size.")


class ModelMetadata(BaseModel):
    """A model, as the Open Inference Protocol describes one."""

    name: str
    versions: list[str] = Field(description="The digest of the bundle.")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """Whether a model can be used."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """The server, as the Open Inference Protocol describes one."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """Whether the server runs."""

    live: bool


class ServerReady(BaseModel):
    """Whether all models can be used."""

    ready: bool


Schema = TypeVar("Schema", bound=BaseModel)


def validate_json(schema: type[Schema], body: bytes) -> Schema:
    """Return a body of JSON, read by a route itself, as its schema.

    Raises RequestValidationError, as FastAPI does for the bodies that it reads.
    """
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        # An error of the whole body is one of the field "body"; its Content-Type has been checked.
        wrong = [{**entry, "loc": ("body", *(entry["loc"] or ("body",)))} for entry in error.errors()]
        raise RequestValidationError(wrong) from None
