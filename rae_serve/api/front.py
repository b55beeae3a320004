"""What every request passes first: its id, its limits, its line in the log, its place in the metrics."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
import time
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rae_serve import metrics, problems
from rae_serve.api.waiting import DEADLINE, ClientLeft
from rae_serve.problems import REQUEST_ID
from rae_serve.settings import Settings

access = logging.getLogger("rae_serve.access")

_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
# After an answer before the body's end: what is left of the body is not read.
_CLOSE: Final = {"Connection": "close"}
# Random once: to ask the system for more with every request would hand the GIL to another thread each time.
_PROCESS: Final = secrets.token_hex(6).encode()
_numbers: Final = itertools.count()
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Front:
    """ASGI middleware. Limits a body's size and a request's time; logs and counts every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self.settings)
        try:
            await exchange.run(self.app)
        finally:
            exchange.record()


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: Settings) -> None:
        self.scope, self._receive, self._send, self.settings = scope, receive, send, settings
        self.began = time.monotonic()
        self.status = 499  # until an answer has begun: the client has left
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        self.id = given if _ID.fullmatch(given) else b"%s-%x" % (_PROCESS, next(_numbers))
        self.declared = headers.get(b"content-length", b"0")
        self.bytes = 0
        self.body_ended = False
        scope[REQUEST_ID] = self.id.decode()
        scope[DEADLINE] = self.began + settings.max_seconds

    async def run(self, app: ASGIApp) -> None:
        try:
            if self.declared.isdigit() and int(self.declared) > self.settings.max_body_bytes:
                metrics.DROPPED.labels("too_large").inc()
                error = self._too_large()
                answer = problems.response(error.status_code, error.detail, headers=error.headers)
                await answer(self.scope, self._receive, self.send)
            else:
                await app(self.scope, self.receive, self.send)
        except ClientLeft:  # to whom this is sent, nobody hears; what wraps this app may wait for it
            nothing = Response(status_code=499, media_type=problems.MEDIA_TYPE)
            await nothing(self.scope, self._receive, self.send)
        except Exception:
            self.status = 500
            raise

    async def receive(self) -> Message:
        if self.body_ended:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self.scope[DEADLINE] - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            limit = f"the body did not come within {self.settings.max_seconds:g} s"
            raise HTTPException(408, limit, _CLOSE) from None
        self.bytes += len(message.get("body", b""))
        self.body_ended = not message.get("more_body", False)
        if self.bytes > self.settings.max_body_bytes:
            metrics.DROPPED.labels("too_large").inc()
            raise self._too_large()
        return message

    def _too_large(self) -> HTTPException:
        limit = f"the body is larger than the limit of {self.settings.max_body_bytes} bytes"
        return HTTPException(413, limit, _CLOSE)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self.id)]
        await self._send(message)

    def record(self) -> None:
        ms = (time.monotonic() - self.began) * 1e3
        method = self.scope["method"] if self.scope["method"] in _METHODS else "other"
        route = getattr(self.scope.get("route"), "path", "other")
        metrics.REQUESTS.labels(method, route, self.status).inc()
        metrics.LATENCY.labels(route).observe(ms)
        if self.settings.access_log:
            client = self.scope.get("client")
            facts = {
                "id": self.id.decode(),
                "client": client[0] if client else None,
                "method": self.scope["method"],
                "path": self.scope["path"],
                "status": self.status,
                "ms": round(ms, 2),
                "bytes_in": self.bytes,
            }
            access.info("answered", extra={"facts": facts})
