"""Read the pictures in a request: one as the raw body, or several as a form's files or as base64 in JSON."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from rae_serve import arrays
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.preprocessing import Preprocessing, read_picture
from rae_serve.server.schemas import ImagesRequest
from rae_serve.server.settings import Settings

_BINARY: Final = {"type": "string", "format": "binary"}
PICTURE_TYPES: Final = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff")
# A PNG of one grey pixel, so that the example stays short.
_EXAMPLE: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="

# The OpenAPI description of such a body. FastAPI makes none for a route that reads the body itself.
BODY_DOCS: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            **{content_type: {"schema": _BINARY} for content_type in PICTURE_TYPES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "additionalProperties": False,
                    "properties": {"images": {"type": "array", "minItems": 1, "items": _BINARY}},
                }
            },
            "application/json": {
                "schema": ImagesRequest.model_json_schema(),
                "example": {"images": [_EXAMPLE]},
            },
        },
    }
}


@dataclass(frozen=True)
class Upload:
    """The picture files of a request, each with the name of its field, and the other fields of a JSON body."""

    files: list[tuple[str, bytes]]
    model: str | None = None
    format: str | None = None


async def read_upload(request: Request, max_pictures: int) -> Upload:
    """Read the picture files in the body of a request.

    Raises:
        HTTPException: The form cannot be read (400), or the Content-Type is not supported (415).
        RequestValidationError: The body is not JSON, or has a wrong field.
        InvalidInput: There is no picture, or there are more than `max_pictures`.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        upload = await _read_form(request, max_pictures)
    elif content_type == "application/json":
        upload = _read_json(await request.body())
    elif content_type in PICTURE_TYPES or content_type == "application/octet-stream":
        upload = Upload([("body", await request.body())])
    else:
        given = f"not {content_type}" if content_type else "but it is missing"
        raise HTTPException(415, f"Content-Type must be image/…, multipart/form-data or application/json, {given}")
    if not upload.files:
        raise InvalidInput("images", "must hold at least one picture")
    arrays.at_most("images", len(upload.files), max_pictures)
    return upload


def preprocess(upload: Upload, preprocessing: Preprocessing, settings: Settings) -> Pixels:
    """Decode and preprocess the pictures of an upload. Return them as uint8 [N, H, W, C].

    Raises InvalidInput, naming the field, if a file is not a picture or the pictures together have more than
    `settings.max_pixels` pixels.
    """
    pixels_left = settings.max_pixels
    images = []
    for field, data in upload.files:
        picture = read_picture(data, field, max_pixels=pixels_left)
        pixels_left -= picture.width * picture.height
        images.append(preprocessing(picture))
    return np.stack(images)


def decode_base64(field: str, text: str) -> bytes:
    """Decode base64. Raises InvalidInput, naming `field`, if the text is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(field, "is not base64") from None


def _read_json(body: bytes) -> Upload:
    try:
        request = ImagesRequest.model_validate_json(body)
    except ValidationError as error:
        problems = [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors()]
        raise RequestValidationError(problems) from None
    files = [(f"images.{i}", decode_base64(f"images.{i}", text)) for i, text in enumerate(request.images)]
    return Upload(files, request.model, request.format)


async def _read_form(request: Request, max_pictures: int) -> Upload:
    try:
        await request.form(max_files=max_pictures + 1, max_fields=0)
    except (UnicodeError, LookupError) as error:
        raise HTTPException(400, f"the form's charset cannot be used: {error}") from None
    async with request.form() as form:  # the form that was just read, now closed at the end
        parts = form.multi_items()
        names = sorted({name for name, part in parts if not isinstance(part, UploadFile)})
        if names:
            raise InvalidInput(names[0], "must be a file")
        files = [part for _, part in parts if isinstance(part, UploadFile)]
        return Upload([(part.filename or "images", await part.read()) for part in files])
