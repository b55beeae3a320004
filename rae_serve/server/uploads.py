"""Pictures that clients send: as the raw body, as a form's files, or as base64 in JSON."""

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

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.preprocessing import Preprocessing, read_picture
from rae_serve.server.schemas import ImagesRequest
from rae_serve.server.settings import Settings

_BINARY: Final = {"type": "string", "format": "binary"}
RAW: Final = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff")
# One grey pixel, the smallest picture that an example can carry.
_EXAMPLE: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="

# For OpenAPI: FastAPI does not describe a body that a handler reads itself.
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": _BINARY} for kind in RAW},
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
    """The files of a request, each with the name of the field that it stood in, and what JSON said beside them."""

    files: list[tuple[str, bytes]]
    model: str | None = None
    format: str | None = None


async def receive(request: Request, limit: int) -> Upload:
    """The picture files of a body, at most `limit`. Raises what becomes 400, 415 or 422."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        upload = await _form(request, limit)
    elif kind == "application/json":
        upload = _json(await request.body())
    elif kind in RAW or kind == "application/octet-stream":
        upload = Upload([("body", await request.body())])
    else:
        given = f"not {kind}" if kind else "and it says nothing"
        raise HTTPException(415, f"Content-Type must be image/…, multipart/form-data or application/json, {given}")
    if not upload.files:
        raise InvalidInput("images", "must hold at least one picture")
    if len(upload.files) > limit:
        raise InvalidInput("images", f"must be at most {limit}, not {len(upload.files)}")
    return upload


def pixels(upload: Upload, preprocessing: Preprocessing, settings: Settings) -> Pixels:
    """uint8 [N, H, W, C]. Raises InvalidInput, naming the field, for what is no picture or too large a one."""
    left = settings.max_pixels
    prepared = []
    for field, data in upload.files:
        picture = read_picture(data, field, max_pixels=left)
        left -= picture.width * picture.height
        prepared.append(preprocessing(picture))
    return np.stack(prepared)


def decoded(field: str, text: str) -> bytes:
    """The bytes of base64. Raises InvalidInput, naming `field`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(field, "is no base64") from None


def _json(body: bytes) -> Upload:
    try:
        request = ImagesRequest.model_validate_json(body)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise HTTPException(400, f"the body is no JSON: {error.errors()[0]['ctx']['error']}") from None
        problems = [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors()]
        raise RequestValidationError(problems) from None
    files = [(f"images.{i}", decoded(f"images.{i}", text)) for i, text in enumerate(request.images)]
    return Upload(files, request.model, request.format)


async def _form(request: Request, limit: int) -> Upload:
    try:
        await request.form(max_files=limit + 1, max_fields=0)
    except (UnicodeError, LookupError) as error:
        raise HTTPException(400, f"the form's charset cannot be used: {error}") from None
    async with request.form() as form:  # as it was just read
        parts = form.multi_items()
        names = sorted({name for name, part in parts if not isinstance(part, UploadFile)})
        if names:
            raise InvalidInput(names[0], "must be a file")
        files = [part for _, part in parts if isinstance(part, UploadFile)]
        return Upload([(part.filename or "images", await part.read()) for part in files])
