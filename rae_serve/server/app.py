"""The FastAPI app. A route checks the request, calls an Engine and encodes the response; see `docs/http.md`."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.formparsers import MultiPartParser

from rae_serve.server import metrics, openapi, problems
from rae_serve.server.catalog import Catalog
from rae_serve.server.routes import attributes, images, inference, latents, models, walks
from rae_serve.server.waiting import ClientLeft, client_left_response


def create_app(catalog: Catalog) -> FastAPI:
    """Return the app that serves the models of a catalog.

    The app expects `middleware.RequestMiddleware` around it, which limits the body and sets the deadline.
    """
    # Starlette writes larger files of a form to disk. The middleware limits the body, so memory is enough.
    MultiPartParser.spool_max_size = catalog.settings.max_body_bytes
    app = FastAPI(
        title="rae-serve",
        version=version("rae-serve"),
        description="Generate and encode images with regularised auto-encoders. "
        "Row i of seed s is always the same image.",
        docs_url=None,  # FastAPI's own pages load their scripts from other servers
        redoc_url=None,
    )
    problems.install(app)
    for module in (models, images, latents, walks, attributes, inference):
        app.include_router(module.routes(catalog))

    @app.exception_handler(ClientLeft)
    async def client_left(request: Request, error: ClientLeft) -> Response:
        return client_left_response()

    openapi.install(app, catalog)

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/ui/")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="rae-serve: HTTP API",
            swagger_js_url="docs/files/swagger-ui-bundle.js",
            swagger_css_url="docs/files/swagger-ui.css",
            swagger_favicon_url="ui/icon.png",
        )

    app.mount("/docs/files", StaticFiles(packages=[("fastapi_offline", "static")]))
    app.mount("/ui", StaticFiles(packages=[("rae_serve.server", "ui")], html=True))

    @app.get("/metrics", include_in_schema=False)
    def prometheus() -> Response:
        catalog.update_metrics()
        return Response(metrics.exposition(), media_type=metrics.MEDIA_TYPE)

    return app
