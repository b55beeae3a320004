"""The BentoML service: workers, GPUs and probes around the HTTP API, and three tensor verbs for other Bentos."""

from __future__ import annotations

import gc
import os
import sys

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # it reports usage unless told not to

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

from rae_serve.errors import InvalidInput, NotFound, Overloaded, RaeServeError
from rae_serve.noise import random_seed
from rae_serve.server import connections, logs, problems
from rae_serve.server.app import create_app
from rae_serve.server.catalog import Catalog
from rae_serve.server.middleware import around
from rae_serve.server.settings import Settings

try:
    catalog = Catalog(Settings.from_environment())
    catalog.check()  # here, once: a worker that fails is started again, for ever
    workers = catalog.settings.worker_count()
except RaeServeError as error:
    sys.exit(f"rae-serve: {error}")
_NATIVE_CALLS = 64  # of the tensor verbs, side by side in a worker, where they share batches
connections.limit(catalog.settings.max_seconds)


class TooManyRequests(BentoMLException):
    """Overloaded, in BentoML's terms."""

    error_code = HTTPStatus.TOO_MANY_REQUESTS


@contextmanager
def _bentoml_errors() -> Iterator[None]:
    try:
        yield
    except InvalidInput as error:
        raise InvalidArgument(str(error)) from None
    except NotFound as error:
        raise BentoNotFound(str(error)) from None
    except Overloaded as error:
        raise TooManyRequests(str(error)) from None


def _limited(field: str, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    limit = catalog.settings.max_images
    if rows.ndim and len(rows) > limit:
        raise InvalidInput(field, f"must be at most {limit} rows, not {len(rows)}")
    return rows


def _as_pixels(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """JSON knows integers, not uint8."""
    if images.dtype.kind == "i" and images.size and images.min() >= 0 and images.max() <= 255:
        return images.astype(np.uint8)
    return images


@bentoml.service(
    name="rae_serve",
    workers=workers,
    threads=_NATIVE_CALLS,
    # BentoML's default host is 0.0.0.0; in a container BENTOML_HOST says so.
    http={"host": os.environ.get("BENTOML_HOST", "127.0.0.1"), "port": catalog.settings.port},
    # Its metrics make one series of every URL; /metrics, the log and the time limit are our own.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    traffic={"timeout": catalog.settings.max_seconds + 5},
)
@bentoml.asgi_app(create_app(catalog), path="/")
class RaeServe:
    """Regularised auto-encoders over HTTP. The API for people is at /docs; here are the native tensor verbs."""

    def __init__(self) -> None:
        logs.install()
        catalog.load(worker=max(0, (server_context.worker_index or 1) - 1))
        catalog.watch()
        # What is loaded now stays: a full collection would walk through it again and again, tens of milliseconds
        # at a time, under load.
        gc.collect()
        gc.freeze()

    def __is_ready__(self) -> bool:
        return catalog.ready()

    @bentoml.on_shutdown
    def close(self) -> None:
        """End after what waits is done."""
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
        """Images, uint8 [n, H, W, C], of the rows offset … offset + n − 1 of a seed."""
        with _bentoml_errors():
            if n > catalog.settings.max_images:
                raise InvalidInput("n", f"must be at most {catalog.settings.max_images}, not {n}")
            seed = random_seed() if seed is None else seed
            return catalog.engine(model).sample(n, seed=seed, offset=offset, temperature=temperature)

    @bentoml.api
    def encode(self, images: np.ndarray, model: str | None = None) -> np.ndarray:
        """Latents, float32 [N, latent_dim], of images, uint8 [N, H, W, C]."""
        with _bentoml_errors():
            return catalog.engine(model).encode(_as_pixels(_limited("images", images)))

    @bentoml.api
    def decode(self, latents: np.ndarray, model: str | None = None) -> np.ndarray:
        """Images, uint8 [N, H, W, C], of latents, float32 [N, latent_dim]."""
        with _bentoml_errors():
            return catalog.engine(model).decode(_limited("latents", latents))


class NoForms:
    """ASGI middleware. BentoML would take its verbs' arrays from a form too, and answers 500 to a broken one."""

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self.app = app
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = Headers(scope=scope).get("content-type", "") if scope.get("path") in self.paths else ""
        if kind.lower().startswith("multipart/"):
            await problems.response(415, "the body must be application/json; set Content-Type")(scope, receive, send)
        else:
            await self.app(scope, receive, send)


_verbs = {method.route for method in RaeServe.apis.values()}  # type: ignore[attr-defined]  # it is a Service now
for middleware, options in (*around(catalog.settings), (NoForms, {"paths": _verbs})):  # the outermost first
    RaeServe.add_asgi_middleware(middleware, **options)  # type: ignore[attr-defined]
