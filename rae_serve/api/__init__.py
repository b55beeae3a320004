"""The HTTP API: validate, call an Engine, encode. `docs/http.md` tells its conventions."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from rae_serve import metrics, problems
from rae_serve.api import coding, models, moving, openapi, sampling
from rae_serve.api.front import Front
from rae_serve.catalog import Catalog


def create_app(catalog: Catalog) -> FastAPI:
    """The API over the models of a catalog."""
    app = FastAPI(
        title="rae-serve",
        version=version("rae-serve"),
        description="Images from regularised auto-encoders. Row i of seed s is one image, always.",
    )
    problems.install(app)
    app.add_middleware(Front, settings=catalog.settings)
    for part in (models, sampling, coding, moving):
        app.include_router(part.routes(catalog))

    openapi.install(app, catalog)

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/ui/")

    app.mount("/ui", StaticFiles(packages=[("rae_serve", "ui")], html=True))

    @app.get("/metrics", include_in_schema=False)
    def prometheus() -> Response:
        for graph, rows in catalog.waiting().items():
            metrics.WAITING_ROWS.labels(graph).set(rows)
        return Response(metrics.exposition(), media_type=metrics.MEDIA_TYPE)

    return app
