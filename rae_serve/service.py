"""The BentoML service: worker processes, GPUs and probes around the HTTP API, and three verbs for other Bentos."""

from __future__ import annotations

import gc
import os
import sys

from rae_serve.server import metrics_folder

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # before the import: BentoML reports usage by default
os.environ.pop("BENTOML_CONTAINERIZED", None)  # BentoML's images set it; then a worker that dies is not replaced
os.environ.update(metrics_folder.environment())

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import bentoml
import numpy as np
import numpy.typing as npt
from bentoml import server_context
from bentoml.exceptions import BentoMLException, InvalidArgument
from bentoml.exceptions import NotFound as BentoNotFound
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rae_serve import arrays
from rae_serve.errors import InvalidInput, NotFound, Overloaded, RaeServeError
from rae_serve.noise import random_seed
from rae_serve.server import connections, logs, placement, problems, shutdown
from rae_serve.server.app import create_app
from rae_serve.server.catalog import Catalog
from rae_serve.server.content_types import content_type, unsupported
from rae_serve.server.middleware import FrontRequired, front
from rae_serve.server.settings import Settings

try:
    catalog = Catalog(Settings.from_environment())
    catalog.check()  # here and not in a worker: BentoML restarts a worker that fails, again and again
    workers = placement.worker_count(catalog.settings)
except RaeServeError as error:
    sys.exit(f"rae-serve: {error}")
# A container image installs this package before the rest of the Bento is copied, so it needs these files earlier.
_IMAGE = bentoml.images.Image().build_include("pyproject.toml", "README.md", "LICENSE", "rae_serve")
_VERB_THREADS = 64  # calls of the tensor verbs that one worker runs at once; the calls share batches
connections.install(catalog.settings.max_seconds, lambda app: front(app, catalog))
shutdown.install(catalog.settings.drain_seconds, catalog.drain)


class TooManyRequests(BentoMLException):
    """Overloaded, as an exception that BentoML turns into 429."""

    error_code = HTTPStatus.TOO_MANY_REQUESTS


@contextmanager
def _bentoml_errors() -> Iterator[None]:
    """Translate the library's exceptions into BentoML's."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidArgument(str(error)) from None
    except NotFound as error:
        raise BentoNotFound(str(error)) from None
    except Overloaded as error:
        raise TooManyRequests(str(error)) from None


def _check_rows(field: str, rows: npt.NDArray[Any]) -> None:
    if rows.ndim:  # the engine refuses an array without rows
        arrays.at_most(field, len(rows), catalog.settings.max_images, "rows")


def _as_pixels(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert integers from 0 to 255 to uint8, because an array from JSON has a larger integer type."""
    if images.dtype.kind == "i" and images.size and images.min() >= 0 and images.max() <= 255:
        return images.astype(np.uint8)
    return images


@bentoml.service(
    name="rae_serve",
    image=_IMAGE,
    workers=workers,
    threads=_VERB_THREADS,
    # BentoML's default host is 0.0.0.0. In a container, set BENTOML_HOST=0.0.0.0.
    http={"host": os.environ.get("BENTOML_HOST", "127.0.0.1"), "port": catalog.settings.port},
    # The app has its own metrics, log and time limit. BentoML's metrics would make a time series for every URL.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    traffic={"timeout": catalog.settings.max_seconds + 5},
)
@bentoml.asgi_app(create_app(catalog), path="/")
class RaeServe:
    """Regularised auto-encoders over HTTP. These are the tensor verbs for other Bentos; the HTTP API is at /docs."""

    def __init__(self) -> None:
        logs.install()
        catalog.load(worker=max(0, (server_context.worker_index or 1) - 1))
        catalog.watch()
        # Exclude all objects made so far from garbage collection: they stay for the life of the process, and a
        # full collection would visit each of them while requests wait.
        gc.collect()
        gc.freeze()

    def __is_ready__(self) -> bool:
        return catalog.ready()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Close the engines after their waiting rows are done."""
        catalog.close()

    @bentoml.api
    def generate(
        self,
        n: int = 1,
        seed: int | None = None,
        offset: int = 0,
        temperature: float = 1.0,
        model: str | None = None,
    ) -> np.ndarray:
        """Generate the images, uint8 [n, H, W, C], of the rows offset … offset + n − 1 of a seed."""
        with _bentoml_errors():
            arrays.at_most("n", n, catalog.settings.max_images)
            seed = random_seed() if seed is None else seed
            return catalog.engine(model).sample(n, seed=seed, offset=offset, temperature=temperature)

    @bentoml.api
    def encode(self, images: np.ndarray, model: str | None = None) -> np.ndarray:
        """Encode images, uint8 [N, H, W, C], to latents, float32 [N, latent_dim]."""
        with _bentoml_errors():
            _check_rows("images", images)
            return catalog.engine(model).encode(_as_pixels(images))

    @bentoml.api
    def decode(self, latents: np.ndarray, model: str | None = None) -> np.ndarray:
        """Decode latents, float32 [N, latent_dim], to images, uint8 [N, H, W, C]."""
        with _bentoml_errors():
            _check_rows("latents", latents)
            return catalog.engine(model).decode(latents)


class RefuseForms:
    """ASGI middleware that answers 415 if one of the paths is sent a form.

    BentoML would read the arrays of its verbs from a form too, and answer 500 to a malformed one.
    """

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self.app = app
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        media_type = content_type(Headers(scope=scope)) if scope.get("path") in self.paths else ""
        if media_type.startswith("multipart/"):
            await problems.response(415, unsupported(media_type, "application/json"))(scope, receive, send)
        else:
            await self.app(scope, receive, send)


_verb_paths = {method.route for method in RaeServe.apis.values()}  # type: ignore[attr-defined]  # a bentoml Service
for middleware, options in ((FrontRequired, {}), (RefuseForms, {"paths": _verb_paths})):
    RaeServe.add_asgi_middleware(middleware, **options)  # type: ignore[attr-defined]  # the outermost first
