"""A short way to the images of seeds, around the layers of BentoML and FastAPI, which cost more than a model."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable
from typing import Final, NamedTuple

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rae_serve.arrays import MAX_INTEGER
from rae_serve.server import problems
from rae_serve.server.catalog import Catalog
from rae_serve.server.content_types import content_type, is_json
from rae_serve.server.routes import images
from rae_serve.server.schemas import SampleRequest
from rae_serve.server.waiting import ClientLeft

_IMAGE: Final = re.compile(r"/v1/models/([^/]+)/images/(0|[1-9][0-9]{0,15})/(0|[1-9][0-9]{0,15})\.png")


class _Route(NamedTuple):
    """The route of a request, as metrics name it."""

    path: str


_SAMPLE_ROUTE: Final = _Route(images.SAMPLE)
_IMAGE_ROUTE: Final = _Route(images.IMAGE)


class ShortPath:
    """ASGI middleware that responds to plain requests for images of seeds, and passes every other request on.

    Plain is a request that is right in every respect: a `POST /v1/sample` whose JSON fits its schema, or a `GET` of
    `/v1/models/{name}/images/{seed}/{index}.png`. It gets the response of the route's own function in
    `routes/images.py`, and errors that this function raises become the same problem details as in the app. A request
    that is wrong goes to the app, which says what is wrong with it.
    """

    def __init__(self, app: ASGIApp, catalog: Catalog) -> None:
        self.app = app
        self.catalog = catalog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"] == images.SAMPLE and scope["method"] == "POST":
                await self._sample(scope, receive, send)
                return
            if scope["method"] == "GET" and (found := _IMAGE.fullmatch(scope["path"])):
                name, seed, index = found[1], int(found[2]), int(found[3])
                if max(seed, index) <= MAX_INTEGER:
                    scope["route"] = _IMAGE_ROUTE
                    request = Request(scope, receive)
                    known = request.headers.get("if-none-match")
                    work = images.show_image(self.catalog, request, name, seed, index, known)
                    await (await _response(request, work))(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _sample(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, message = Request(scope, receive), await receive()
        sampling = _plain_sampling(request, message)
        if sampling is None:
            await self.app(scope, _replayed(message, receive), send)
            return
        scope["route"] = _SAMPLE_ROUTE
        response = await _response(request, images.sample(self.catalog, sampling, request))
        await response(scope, receive, send)


async def _response(request: Request, work: Awaitable[Response]) -> Response:
    """Await the response of a route's function; if it raises, return what the app would respond."""
    try:
        return await work
    except ClientLeft:
        raise
    except Exception as error:
        return problems.of(request, error)


def _plain_sampling(request: Request, message: Message) -> SampleRequest | None:
    """Return the sampling that a request asks for, or None if the app should see the request.

    Args:
        request: The request.
        message: Its body.
    """
    if not is_json(content_type(request.headers)):
        return None
    try:
        return SampleRequest.model_validate(json.loads(message["body"]))
    except (ValueError, RecursionError):  # a ValidationError is a ValueError
        return None


def _replayed(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that gives a message that was taken already, and then the next ones."""
    taken = [message]

    async def receive_again() -> Message:
        return taken.pop() if taken else await receive()

    return receive_again
