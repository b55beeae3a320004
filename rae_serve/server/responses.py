"""Encode images and latents as HTTP responses."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from fastapi import Response
from pydantic import BaseModel

from rae_serve import arrays, images
from rae_serve.arrays import Latents, Pixels
from rae_serve.engine import Engine
from rae_serve.images import MEDIA_TYPES, Animation
from rae_serve.server import waiting
from rae_serve.server.schemas import ImagesResponse, LatentsResponse, SampleResponse, WalkRequest, WalkResponse

_ANIMATIONS: Final[dict[str, Animation]] = {"gif": "gif", "webp-animation": "webp"}


def model_headers(engine: Engine, seed: int | None = None) -> dict[str, str]:
    """Return the headers that name the model of a response and, if there is one, its seed."""
    # A header can hold Latin-1 only, but a model may have any name.
    headers = {"RAE-Model": quote(engine.bundle.name), "RAE-Digest": engine.manifest.digest}
    return headers if seed is None else {"RAE-Seed": str(seed), **headers}


async def sample_response(engine: Engine, pixels: Pixels, format_: str, seed: int, offset: int) -> Response:
    """Encode the images of a seed.

    Args:
        engine: The engine that made the images.
        pixels: The images, uint8 [N, H, W, C].
        format_: One of `schemas.PictureFormat`.
        seed: The seed of the images.
        offset: The row of the first image.
    """

    def document() -> BaseModel:
        return SampleResponse(**_model(engine), seed=seed, offset=offset, images=_base64_pngs(pixels))

    def file_name(index: int) -> str:
        return f"{seed}-{offset + index:06d}.png"

    return await _response(engine, pixels, format_, document, seed=seed, file_name=file_name)


async def images_response(engine: Engine, pixels: Pixels, format_: str) -> Response:
    """Encode images that were made from latents or from pictures.

    Args:
        engine: The engine that made the images.
        pixels: The images, uint8 [N, H, W, C].
        format_: One of `schemas.PictureFormat`.
    """

    def document() -> BaseModel:
        return ImagesResponse(**_model(engine), images=_base64_pngs(pixels))

    return await _response(engine, pixels, format_, document)


async def walk_response(engine: Engine, latents: Latents, pixels: Pixels, asked: WalkRequest) -> Response:
    """Encode the images of an interpolation or an edit, as a strip of one row or as an animation.

    Args:
        engine: The engine that made the images.
        latents: The latents of the images, float32 [N, latent_dim].
        pixels: The images, uint8 [N, H, W, C].
        asked: The request, which says the format.
    """
    if animation := _ANIMATIONS.get(asked.format):
        rate, back = asked.frame_rate, asked.there_and_back
        body = await waiting.in_thread(
            lambda: images.animate(pixels, animation, frame_rate=rate, there_and_back=back)
        )
        return Response(body, headers=model_headers(engine), media_type=MEDIA_TYPES[animation])

    def document() -> BaseModel:
        return WalkResponse(**_model(engine), images=_base64_pngs(pixels), latents=arrays.decimals(latents))

    return await _response(engine, pixels, asked.format, document, columns=len(pixels))


async def latents_response(engine: Engine, latents: Latents, format_: str) -> Response:
    """Encode latents, float32 [N, latent_dim], as "json" or "npy"."""
    if format_ == "npy":
        body = images.encode_npy(latents)
    else:
        active = engine.manifest.latent.active
        body = _json(LatentsResponse(**_model(engine), active=active, latents=arrays.decimals(latents)))
    return Response(body, headers=model_headers(engine), media_type=MEDIA_TYPES[format_])


async def png(image: Pixels) -> bytes:
    """Encode one image [H, W, C] as a PNG file."""
    return await waiting.in_thread_if_large(image.nbytes, lambda: images.encode(image))


async def _response(
    engine: Engine,
    pixels: Pixels,
    format_: str,
    document: Callable[[], BaseModel],
    *,
    seed: int | None = None,
    file_name: Callable[[int], str] = "{:06d}.png".format,
    columns: int | None = None,
) -> Response:
    """Encode images in any format.

    Args:
        engine: The engine that made the images.
        pixels: The images, uint8 [N, H, W, C].
        format_: One of `schemas.PictureFormat`.
        document: Makes the document of the format "json".
        seed: The seed for the header `RAE-Seed`; no such header by default.
        file_name: Names the image of an index, for the format "zip".
        columns: The columns of the grid if the images become one picture; nearly square by default.
    """

    def encode() -> bytes:
        match format_:
            case "json":
                return _json(document())
            case "npy":
                return images.encode_npy(pixels)
            case "zip":
                return images.encode_zip(pixels, [file_name(i) for i in range(len(pixels))])
            case "png" | "webp" | "jpeg":
                return images.encode(images.grid(pixels, columns), format_)
        raise AssertionError(format_)

    body = await waiting.in_thread_if_large(pixels.nbytes, encode)
    return Response(body, headers=model_headers(engine, seed), media_type=MEDIA_TYPES[format_])


def _json(document: BaseModel) -> bytes:
    return document.model_dump_json().encode()


def _base64_pngs(pixels: Pixels) -> list[str]:
    return [base64.b64encode(images.encode(image)).decode() for image in pixels]


def _model(engine: Engine) -> dict[str, Any]:
    return {"model": engine.bundle.name, "digest": engine.manifest.digest}
