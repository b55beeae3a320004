"""The HTTP API: validate, call an Engine, encode. `docs/http.md` tells its conventions."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.formparsers import MultiPartParser

from rae_serve.server import metrics, openapi, problems
from rae_serve.server.catalog import Catalog
from rae_serve.server.routes import images, latents, models, walks
from rae_serve.server.waiting import ClientLeft, to_nobody


def create_app(catalog: Catalog) -> FastAPI:
    """The API over the models of a catalog, to be put behind `middleware.Front`."""
    # Starlette's parser of forms would write larger files to disk; a body has its limit already.
    MultiPartParser.spool_max_size = catalog.settings.max_body_bytes
    app = FastAPI(
        title="rae-serve",
        version=version("rae-serve"),
        description="Images from regularised auto-encoders. Row i of seed s is one image, always.",
    )
    problems.install(app)
    for part in (models, images, latents, walks):
        app.include_router(part.routes(catalog))

    @app.exception_handler(ClientLeft)
    async def left(request: Request, error: ClientLeft) -> Response:
        return to_nobody()

    openapi.install(app, catalog)

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/ui/")

    app.mount("/ui", StaticFiles(packages=[("rae_serve.server", "ui")], html=True))

    @app.get("/metrics", include_in_schema=False)
    def prometheus() -> Response:
        catalog.count()
        return Response(metrics.exposition(), media_type=metrics.MEDIA_TYPE)

    return app
