"""The route that finds the direction of an attribute from points that a user has marked."""

from __future__ import annotations

from typing import Final

import numpy as np
from fastapi import APIRouter, Request

from rae_serve import arrays, attributes
from rae_serve.arrays import Latents
from rae_serve.manifest import Attribute
from rae_serve.server import waiting
from rae_serve.server.catalog import Catalog
from rae_serve.server.openapi import problem_docs
from rae_serve.server.points import latents_of
from rae_serve.server.schemas import AttributeRequest, AttributeResponse

_SOURCE: Final = "a user's choice"  # completes "images of …" in the manifest


def routes(catalog: Catalog) -> APIRouter:
    """Return the route `/v1/attributes`."""
    router = APIRouter(tags=["latents"])
    settings = catalog.settings

    @router.post("/v1/attributes", responses=problem_docs(400, 404, 408, 413, 415, 422, 429, 503))
    async def find_attribute(asked: AttributeRequest, request: Request) -> AttributeResponse:
        """Find the direction from points without an attribute to points with it, and say how good it is."""
        engine = catalog.engine(asked.model)
        sides = {"has": asked.has, "lacks": asked.lacks}
        for field, side in sides.items():
            arrays.at_most(field, len(side), settings.max_images)
        points = {f"{field}.{i}": point for field, side in sides.items() for i, point in enumerate(side)}
        latents = await latents_of(request, engine, points, settings)
        found = await waiting.in_thread(_found, latents, len(asked.has))
        if asked.keep is not None:
            await waiting.in_thread(catalog.keep_attribute, engine, asked.keep, found)
        return AttributeResponse(
            model=engine.bundle.name,
            digest=engine.manifest.digest,
            attribute=found,
            doubt=attributes.doubt(found),
            latents=arrays.decimals(latents),
            can_keep=settings.keep_attributes,
        )

    return router


def _found(latents: Latents, count: int) -> Attribute:
    """Return the direction of an attribute that the first `count` of the latents [N, D] have and the others lack."""
    has = np.arange(len(latents)) < count
    name = ""  # only errors have it, and there are enough points for none
    return attributes.find_in(latents.astype(np.float64), has[:, None], [name], _SOURCE)[name]
