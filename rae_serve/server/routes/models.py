"""Routes that list the models and show one of them."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response

from rae_serve.engine import Engine
from rae_serve.errors import NotFound
from rae_serve.images import MEDIA_TYPES
from rae_serve.manifest import Map
from rae_serve.server.catalog import Catalog
from rae_serve.server.openapi import ResponseDocs, file_docs, problem_docs
from rae_serve.server.schemas import ModelDetail, ModelList, ModelSummary

_PICTURE_DOCS: Final[ResponseDocs] = {
    200: {"content": file_docs("png"), "description": "The picture."},
    **problem_docs(404, 422),
}


def routes(catalog: Catalog) -> APIRouter:
    """Return the routes below `/v1/models`, except those of images."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models")
    async def list_models() -> ModelList:
        """List the models, with the shapes of their inputs and outputs."""
        engines, default = catalog.engines, catalog.default()
        models = [_summary(name, engine, name == default.name) for name, engine in engines.items()]
        return ModelList(models=models, default=default.name, default_reason=default.reason)

    @router.get("/v1/models/{name}", responses=problem_docs(404, 422))
    async def show_model(name: str) -> ModelDetail:
        """Show the whole manifest of a model."""
        return ModelDetail(name=name, manifest=catalog.engine(name).manifest)

    @router.get("/v1/models/{name}/map", responses=problem_docs(404, 422))
    async def show_map(name: str) -> Map:
        """Show the map of a model: latents of images and of the prior on the first two principal directions."""
        drawn = catalog.engine(name).bundle.map()
        if drawn is None:
            raise NotFound(f"model {name!r} has no map; export it again, or rae-serve attributes draws one")
        return drawn

    @router.get("/v1/models/{name}/pictures/{file}", response_class=Response, responses=_PICTURE_DOCS)
    async def show_picture(name: str, file: str) -> Response:
        """Show a picture of the evaluation that a model's bundle has; the manifest lists them."""
        bundle = catalog.engine(name).bundle
        if file not in {picture.file for picture in bundle.manifest.pictures()}:
            raise NotFound(f"the evaluation of model {name!r} has no picture {file!r}")
        return Response(bundle.contents[file], media_type=MEDIA_TYPES["png"])

    return router


def _summary(name: str, engine: Engine, default: bool) -> ModelSummary:
    manifest = engine.manifest
    return ModelSummary(
        name=name,
        digest=manifest.digest,
        kind=manifest.model.kind,
        default=default,
        shape=manifest.image.shape,
        latent_dim=manifest.latent.dim,
        noise_dim=manifest.noise.dim,
    )
