"""Which models there are."""

from __future__ import annotations

from fastapi import APIRouter

from rae_serve.engine import Engine
from rae_serve.server.catalog import Catalog
from rae_serve.server.openapi import failures
from rae_serve.server.schemas import ModelDetail, ModelList, ModelSummary


def routes(catalog: Catalog) -> APIRouter:
    """`/v1/models`."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models")
    async def list_models() -> ModelList:
        """The models, and what goes in and out of each."""
        engines = catalog.engines()
        default = catalog.default()
        return ModelList(models=[_summary(name, engine, name == default) for name, engine in engines.items()])

    @router.get("/v1/models/{name}", responses=failures(404, 422))
    async def show_model(name: str) -> ModelDetail:
        """One model's whole manifest."""
        return ModelDetail(name=name, manifest=catalog.engine(name).manifest)

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
