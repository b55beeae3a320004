"""What every request passes first: its id, its limits, its line in the log, its place in the metrics."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
import time
from typing import Any, Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rae_serve.errors import Expired
from rae_serve.server import metrics, problems
from rae_serve.server.keys import ApiKeys
from rae_serve.server.problems import REQUEST_ID
from rae_serve.server.settings import Settings
from rae_serve.server.waiting import DEADLINE, ClientLeft, to_nobody

access = logging.getLogger("rae_serve.access")

_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_KEY_NEEDED: Final = "a key is needed: send the header Authorization: Bearer KEY, with one that the server knows"
# Random once: to ask the system for more with every request would hand the GIL to another thread each time.
_PROCESS: Final = secrets.token_hex(6).encode()
_numbers: Final = itertools.count()
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def around(settings: Settings) -> list[tuple[Any, dict[str, Any]]]:
    """The middleware of the whole service, BentoML's own endpoints included, and its options; the outermost first."""
    middleware: list[tuple[Any, dict[str, Any]]] = [(Front, {"settings": settings}), (problems.ProblemDetails, {})]
    if settings.cors_origins:  # before keys, since a browser asks for permission without one
        cors = {
            "allow_origins": settings.cors_origins,
            "allow_methods": ["GET", "POST"],
            "allow_headers": ["Authorization", "Content-Type", "If-None-Match", "X-Request-Id"],
            "expose_headers": ["ETag", "RAE-Digest", "RAE-Model", "RAE-Seed", "Retry-After", "X-Request-Id"],
        }
        middleware.insert(0, (CORSMiddleware, cors))
    return middleware


class Front:
    """ASGI middleware. Asks for a key, limits a body's size and a request's time; logs and counts every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.keys = ApiKeys(settings.api_keys or ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self.settings)
        try:
            await exchange.run(self.app, self.keys)
        finally:
            exchange.record()


class _Refused(Exception):
    """The answer to a request whose body is not read to its end."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        self.answer = problems.response(status, detail, headers={"Connection": "close", **headers})


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: Settings) -> None:
        self.scope, self._receive, self._send, self.settings = scope, receive, send, settings
        self.began = time.monotonic()
        self.status = 499  # until an answer has begun: the client has left
        self.headers = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.id = given if _ID.fullmatch(given) else b"%s-%x" % (_PROCESS, next(_numbers))
        self.body: bytes | None = None  # until it has come, and when it has been handed on
        self.bytes = 0
        self.answering = False
        scope[REQUEST_ID] = self.id.decode()
        scope[DEADLINE] = self.began + settings.max_seconds

    async def run(self, app: ASGIApp, keys: ApiKeys) -> None:
        try:
            if challenge := keys.challenge(self.scope, self.headers):
                raise _Refused(401, _KEY_NEEDED, **{"WWW-Authenticate": challenge})
            self.body = await self._whole_body()
            async with asyncio.timeout(self._left_s()):
                await app(self.scope, self.receive, self.send)
        except _Refused as refused:
            await refused.answer(self.scope, self._receive, self.send)
        except TimeoutError:
            metrics.DROPPED.labels("expired").inc()
            if not self.answering:
                answer = problems.response(503, str(Expired()), headers={"Retry-After": "1"})
                await answer(self.scope, self._receive, self.send)
        except ClientLeft:
            await to_nobody()(self.scope, self._receive, self.send)
        except Exception:
            self.status = 500
            raise

    async def receive(self) -> Message:
        if self.body is None:
            return await self._receive()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _whole_body(self) -> bytes:
        """The body, before anything is done with it: no handler meets one that is too large, or too slow."""
        declared = self.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.settings.max_body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._left_s()):
                more = True
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeft
                    parts.append(message.get("body", b""))
                    self.bytes += len(parts[-1])
                    if self.bytes > self.settings.max_body_bytes:
                        raise self._too_large()
                    more = message.get("more_body", False)
        except TimeoutError:
            raise _Refused(408, f"the body did not come within {self.settings.max_seconds:g} s") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _left_s(self) -> float:
        left: float = self.scope[DEADLINE] - time.monotonic()
        return left

    def _too_large(self) -> _Refused:
        metrics.DROPPED.labels("too_large").inc()
        return _Refused(413, f"the body is larger than the limit of {self.settings.max_body_bytes} bytes")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.answering = True
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
