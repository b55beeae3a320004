"""Routes that walk through latent space: between two points, or along the direction of an attribute."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response

from rae_serve import arrays
from rae_serve.arrays import Latents
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput
from rae_serve.server import responses, uploads, waiting
from rae_serve.server.catalog import Catalog
from rae_serve.server.openapi import response_docs
from rae_serve.server.schemas import EditRequest, InterpolateRequest, Point, WalkFormat, WalkRequest, WalkResponse
from rae_serve.server.settings import Settings
from rae_serve.server.uploads import Upload


def routes(catalog: Catalog) -> APIRouter:
    """Return the routes `/v1/interpolate` and `/v1/edit`."""
    router = APIRouter(tags=["latents"], default_response_class=Response)
    settings = catalog.settings

    @router.post("/v1/interpolate", responses=response_docs("The images.", WalkResponse, WalkFormat))
    async def interpolate(asked: InterpolateRequest, request: Request) -> Response:
        """Make the images between two points."""
        engine = catalog.engine(asked.model)
        arrays.at_most("steps", asked.steps, settings.max_images)
        if asked.space == "noise":
            start, end = _noise_of(engine, "start", asked.start), _noise_of(engine, "end", asked.end)
        else:
            start = await _latent_of(request, engine, "start", asked.start, settings)
            end = await _latent_of(request, engine, "end", asked.end, settings)
        latents = await waiting.result(
            request,
            lambda deadline: engine.submit_between(
                start, end, asked.steps, space=asked.space, path=asked.path, deadline=deadline
            ),
        )
        return await _decoded(request, engine, latents, asked)

    @router.post("/v1/edit", responses=response_docs("The edited images.", WalkResponse, WalkFormat))
    async def edit(asked: EditRequest, request: Request) -> Response:
        """Make the images of a point with more or less of an attribute."""
        engine = catalog.engine(asked.model)
        arrays.at_most("strengths", len(asked.strengths), settings.max_images)
        latent = await _latent_of(request, engine, "point", asked.point, settings)
        latents = engine.moved([latent], asked.attribute, asked.strengths)
        return await _decoded(request, engine, latents, asked)

    return router


async def _decoded(request: Request, engine: Engine, latents: Latents, asked: WalkRequest) -> Response:
    pixels = await waiting.result(request, lambda deadline: engine.submit_decode(latents, deadline))
    return await responses.walk_response(engine, latents, pixels, asked)


async def _latent_of(
    request: Request, engine: Engine, field: str, point: Point, settings: Settings
) -> npt.NDArray[np.float32]:
    """Return the latent [latent_dim] of a point: encode its picture, or run the prior on the noise of its seed."""
    if point.latent is not None:
        if len(point.latent) != engine.manifest.latent.dim:
            problem = f"must be {engine.manifest.latent.dim} numbers, not {len(point.latent)}"
            raise InvalidInput(f"{field}.latent", problem)
        with np.errstate(over="ignore"):  # the engine refuses numbers that are too large
            return np.asarray(point.latent, np.float32)
    if point.image is not None:
        upload = Upload([(f"{field}.image", uploads.decode_base64(f"{field}.image", point.image))])
        pixels = await waiting.in_thread(uploads.preprocess, upload, engine.manifest.image, settings)
        latents = await waiting.result(request, lambda deadline: engine.submit_encode(pixels, deadline))
    else:
        noise = _noise_of(engine, field, point)
        latents = await waiting.result(request, lambda deadline: engine.submit_latents([noise], deadline))
    latent: npt.NDArray[np.float32] = latents[0]
    return latent


def _noise_of(engine: Engine, field: str, point: Point) -> npt.NDArray[np.float32]:
    """Return the noise [noise_dim] of a point. Raises InvalidInput, naming `field`, if the point is not a seed."""
    if point.seed is None:
        problem = 'must be a seed, because only a seed has noise; for other points set space to "latent"'
        raise InvalidInput(field, problem)
    row: npt.NDArray[np.float32] = engine.noise(
        1, seed=point.seed, offset=point.index, temperature=point.temperature
    )[0]
    return row
