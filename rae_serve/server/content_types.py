"""The Content-Type header of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rae_serve.preprocessing import FORMATS

PICTURES: Final = tuple(f"image/{name.lower()}" for name in FORMATS)
BINARY: Final = "application/octet-stream"
# Other names that programs give to picture types, without the prefix "x-".
_PICTURE_ALIASES: Final = {
    "apng": "png",
    "heic": "heif",
    "jfif": "jpeg",
    "jpg": "jpeg",
    "ms-bmp": "bmp",
    "pjpeg": "jpeg",
    "tif": "tiff",
    "windows-bmp": "bmp",
}


def content_type(headers: Mapping[str, str]) -> str:
    """Return the media type of a body in lower case, without parameters; empty if the header is missing.

    A picture type has its registered name: "image/jpg" gives "image/jpeg".
    """
    media_type = headers.get("content-type", "").split(";")[0].strip().lower()
    if not media_type.startswith("image/"):
        return media_type
    subtype = media_type.removeprefix("image/").removeprefix("x-")
    return f"image/{_PICTURE_ALIASES.get(subtype, subtype)}"


def is_json(media_type: str) -> bool:
    """Return whether a media type is JSON, such as "application/json" or "application/ld+json"."""
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def unsupported(media_type: str, *supported: str) -> str:
    """Return the detail of a 415 response: what Content-Type is, and what to set it to."""
    return f"Content-Type is {media_type or 'missing'}; set it to {' or '.join(supported)}"
