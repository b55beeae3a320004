"""Routes that walk through latent space: between two points, or along the direction of an attribute."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from rae_serve import arrays
from rae_serve.arrays import Latents
from rae_serve.engine import Engine
from rae_serve.server import responses, waiting
from rae_serve.server.catalog import Catalog
from rae_serve.server.openapi import response_docs
from rae_serve.server.points import latents_of, noise_of
from rae_serve.server.schemas import EditRequest, InterpolateRequest, WalkFormat, WalkRequest, WalkResponse


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
            start, end = noise_of(engine, "start", asked.start), noise_of(engine, "end", asked.end)
        else:
            start, end = await latents_of(request, engine, {"start": asked.start, "end": asked.end}, settings)
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
        point = await latents_of(request, engine, {"point": asked.point}, settings)
        latents = engine.moved(point, asked.attribute, asked.strengths)
        return await _decoded(request, engine, latents, asked)

    return router


async def _decoded(request: Request, engine: Engine, latents: Latents, asked: WalkRequest) -> Response:
    pixels = await waiting.result(request, lambda deadline: engine.submit_decode(latents, deadline))
    return await responses.walk_response(engine, latents, pixels, asked)
