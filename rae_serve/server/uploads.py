"""Read the pictures in a request: one as the raw body, or several as a form's files or as base64 in JSON."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from rae_serve import arrays
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.preprocessing import Preprocessing, read_picture
from rae_serve.server import openapi
from rae_serve.server.content_types import BINARY, PICTURES, content_type, is_json, unsupported
from rae_serve.server.schemas import ImagesRequest, validate_json
from rae_serve.server.settings import Settings

_DATA_URL: Final = re.compile(r"\s*data:[^,]*;\s*base64\s*,", re.IGNORECASE)
_FROM_URL_SAFE: Final = str.maketrans("-_", "+/")
# A PNG of one grey pixel, so that the example stays short.
_EXAMPLE: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="

_TEXT_FIELDS: Final = ("model", "format")  # the fields of a form that are no files

# The OpenAPI description of such a body. FastAPI makes none for a route that reads the body itself.
BODY_DOCS: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            **{picture_type: {"schema": openapi.BINARY_SCHEMA} for picture_type in PICTURES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "additionalProperties": False,
                    "properties": {
                        "images": {"type": "array", "minItems": 1, "items": openapi.BINARY_SCHEMA},
                        **{
                            name: {"type": "string", "description": ImagesRequest.model_fields[name].description}
                            for name in _TEXT_FIELDS
                        },
                    },
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
    """The picture files of a request, each with the name of its field, and the other fields of JSON or of a form."""

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
    media_type = content_type(request.headers)
    if media_type == "multipart/form-data":
        upload = await _read_form(request, max_pictures)
    elif is_json(media_type):
        upload = _read_json(await request.body())
    elif media_type in PICTURES or media_type == BINARY:
        upload = Upload([("body", await request.body())])
    else:
        raise HTTPException(415, unsupported(media_type, *PICTURES, "multipart/form-data", "application/json"))
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
    """Decode base64 as programs write it: with line breaks, as a data URL, URL-safe, or without padding.

    Raises InvalidInput, naming `field`, if the text is not base64.
    """
    if prefix := _DATA_URL.match(text):
        text = unquote(text[prefix.end() :])
    text = "".join(line.strip() for line in text.splitlines()).translate(_FROM_URL_SAFE)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(field, "is not base64") from None


def _read_json(body: bytes) -> Upload:
    request = validate_json(ImagesRequest, body)
    files = [(f"images.{i}", decode_base64(f"images.{i}", text)) for i, text in enumerate(request.images)]
    return Upload(files, request.model, request.format)


async def _read_form(request: Request, max_pictures: int) -> Upload:
    try:
        await request.form(max_files=max_pictures + 1)
    except (UnicodeError, LookupError) as error:
        raise HTTPException(400, f"the form's charset cannot be used: {error}") from None
    async with request.form() as form:  # the form that was just read, now closed at the end
        parts = form.multi_items()
        texts = {name: part for name, part in parts if isinstance(part, str)}
        if wrong := sorted(texts.keys() - set(_TEXT_FIELDS)):
            known = " and ".join(_TEXT_FIELDS)
            raise HTTPException(400, f"{wrong[0]}: must be a file, with a file name; only {known} are text")
        files = [part for _, part in parts if isinstance(part, UploadFile)]
        return Upload([(part.filename or "images", await part.read()) for part in files], **texts)
