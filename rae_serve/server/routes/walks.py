"""Ways through latent space: from point to point, and along attributes."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response

from rae_serve.arrays import Latents
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput
from rae_serve.server import responses, uploads, waiting
from rae_serve.server.catalog import Catalog
from rae_serve.server.openapi import outcomes
from rae_serve.server.schemas import EditRequest, InterpolateRequest, Point, WalkResponse
from rae_serve.server.settings import Settings
from rae_serve.server.uploads import Upload

_FORMATS: Final = ("png", "webp", "jpeg", "npy", "gif")


def routes(catalog: Catalog) -> APIRouter:
    """`/v1/interpolate`, `/v1/edit`."""
    router = APIRouter(tags=["latents"], default_response_class=Response)
    settings = catalog.settings

    @router.post("/v1/interpolate", responses=outcomes("The way.", WalkResponse, *_FORMATS))
    async def interpolate(asked: InterpolateRequest, request: Request) -> Response:
        """Images on the way between two points."""
        engine = catalog.engine(asked.model)
        _limited("steps", asked.steps, settings)
        if asked.space == "noise":
            start, end = _noise(engine, "start", asked.start), _noise(engine, "end", asked.end)
        else:
            start = await _latent(request, engine, "start", asked.start, settings)
            end = await _latent(request, engine, "end", asked.end, settings)
        latents = await waiting.result(
            request,
            lambda until: engine.submit_between(
                start, end, asked.steps, space=asked.space, path=asked.path, deadline=until
            ),
        )
        return await _shown(request, engine, latents, asked.format)

    @router.post("/v1/edit", responses=outcomes("The edited images.", WalkResponse, *_FORMATS))
    async def edit(asked: EditRequest, request: Request) -> Response:
        """Images of a point with more, or less, of an attribute."""
        engine = catalog.engine(asked.model)
        _limited("strengths", len(asked.strengths), settings)
        latent = await _latent(request, engine, "point", asked.point, settings)
        latents = engine.moved([latent], asked.attribute, asked.strengths)
        return await _shown(request, engine, latents, asked.format)

    return router


async def _shown(request: Request, engine: Engine, latents: Latents, format_: str) -> Response:
    pixels = await waiting.result(request, lambda until: engine.submit_decode(latents, until))
    return await responses.walk(engine, latents, pixels, format_)


async def _latent(
    request: Request, engine: Engine, field: str, point: Point, settings: Settings
) -> npt.NDArray[np.float32]:
    """The latent [latent_dim] of a point."""
    if point.latent is not None:
        if len(point.latent) != engine.manifest.latent.dim:
            problem = f"must be {engine.manifest.latent.dim} numbers, not {len(point.latent)}"
            raise InvalidInput(f"{field}.latent", problem)
        with np.errstate(over="ignore"):  # what overflows is refused where it is used
            return np.asarray(point.latent, np.float32)
    if point.image is not None:
        upload = Upload([(f"{field}.image", uploads.decoded(f"{field}.image", point.image))])
        pixels = await waiting.in_thread(uploads.pixels, upload, engine.manifest.image, settings)
        codes = await waiting.result(request, lambda until: engine.submit_encode(pixels, until))
    else:
        noise = _noise(engine, field, point)
        codes = await waiting.result(request, lambda until: engine.submit_latents([noise], until))
    row: npt.NDArray[np.float32] = codes[0]
    return row


def _noise(engine: Engine, field: str, point: Point) -> npt.NDArray[np.float32]:
    """The noise [noise_dim] of a point."""
    if point.seed is None:
        raise InvalidInput(field, "must be a seed: only seeds have a noise; use the latent space for this point")
    row: npt.NDArray[np.float32] = engine.noise(1, seed=point.seed, offset=point.index)[0]
    return row


def _limited(field: str, count: int, settings: Settings) -> None:
    if count > settings.max_images:
        raise InvalidInput(field, f"must be at most {settings.max_images}, not {count}")
