"""Pixels and latents as HTTP answers."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import Response

from rae_serve import images
from rae_serve.arrays import Latents, Pixels
from rae_serve.engine import Engine
from rae_serve.images import MEDIA_TYPES
from rae_serve.server import waiting
from rae_serve.server.schemas import ImagesResponse, LatentsResponse, SampleResponse, WalkResponse

# Smaller pictures are encoded sooner than another thread would begin to.
_AT_ONCE_BYTES = 32 * 1024


def headers(engine: Engine, seed: int | None = None) -> dict[str, str]:
    """What an answer was made from."""
    # A header knows Latin-1 only; a folder may have any name.
    made_from = {"RAE-Model": quote(engine.bundle.name), "RAE-Digest": engine.manifest.digest}
    return made_from if seed is None else {"RAE-Seed": str(seed), **made_from}


async def sampled(engine: Engine, pixels: Pixels, format_: str, seed: int, offset: int) -> Response:
    """Rows of a seed."""
    names = [f"{seed}-{offset + i:06d}.png" for i in range(len(pixels))] if format_ == "zip" else []
    if format_ == "json":
        facts = {**_facts(engine), "seed": seed, "offset": offset}
        body = await _encoded(
            pixels, lambda: SampleResponse(**facts, images=_pngs(pixels)).model_dump_json().encode()
        )
    else:
        body = await _encoded(pixels, lambda: _file(images.grid, pixels, format_, names))
    return Response(body, headers=headers(engine, seed), media_type=MEDIA_TYPES[format_])


async def pictures(engine: Engine, pixels: Pixels, format_: str) -> Response:
    """Images in the order of what they were made from."""
    names = [f"{i:06d}.png" for i in range(len(pixels))]
    if format_ == "json":
        body = await _encoded(
            pixels, lambda: ImagesResponse(**_facts(engine), images=_pngs(pixels)).model_dump_json().encode()
        )
    else:
        body = await _encoded(pixels, lambda: _file(images.grid, pixels, format_, names))
    return Response(body, headers=headers(engine), media_type=MEDIA_TYPES[format_])


async def walk(engine: Engine, latents: Latents, pixels: Pixels, format_: str) -> Response:
    """Images in a row, or one after the other."""
    media_type = MEDIA_TYPES.get(format_, MEDIA_TYPES["webp"])
    match format_:
        case "json":
            body = await _encoded(
                pixels,
                lambda: (
                    WalkResponse(**_facts(engine), images=_pngs(pixels), latents=_rows(latents))
                    .model_dump_json()
                    .encode()
                ),
            )
        case "gif":
            body = await waiting.in_thread(images.animate, pixels, "gif")
        case "webp-animation":
            body = await waiting.in_thread(images.animate, pixels, "webp")
        case _:
            body = await _encoded(pixels, lambda: _file(_strip, pixels, format_, []))
    return Response(body, headers=headers(engine), media_type=media_type)


async def codes(engine: Engine, latents: Latents, format_: str) -> Response:
    """Latents."""
    if format_ == "npy":
        body = images.encode_npy(latents)
    else:
        active = engine.manifest.latent.active
        answer = LatentsResponse(**_facts(engine), active=active, latents=_rows(latents))
        body = answer.model_dump_json().encode()
    return Response(body, headers=headers(engine), media_type=MEDIA_TYPES[format_])


async def picture(pixels: Pixels) -> bytes:
    """A PNG of one image [H, W, C]."""
    return await _encoded(pixels, lambda: images.encode(pixels))


async def _encoded(pixels: Pixels, encode: Any) -> bytes:
    encoded: bytes = encode() if pixels.nbytes <= _AT_ONCE_BYTES else await waiting.in_thread(encode)
    return encoded


def _file(arrange: Any, pixels: Pixels, format_: str, names: list[str]) -> bytes:
    match format_:
        case "npy":
            return images.encode_npy(pixels)
        case "zip":
            return images.encode_zip(pixels, names)
        case "png" | "webp" | "jpeg":
            return images.encode(arrange(pixels), format_)
    raise AssertionError(format_)


def _strip(pixels: Pixels) -> Pixels:
    return images.grid(pixels, columns=len(pixels))


def _pngs(pixels: Pixels) -> list[str]:
    return [base64.b64encode(images.encode(image)).decode() for image in pixels]


def _rows(latents: Latents) -> list[list[float]]:
    """The shortest decimals that are these float32 again."""
    return [[float(np.format_float_positional(x, trim="0")) for x in row] for row in latents]


def _facts(engine: Engine) -> dict[str, Any]:
    return {"model": engine.bundle.name, "digest": engine.manifest.digest}
