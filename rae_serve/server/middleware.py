"""The middleware around the whole service, BentoML's own endpoints included.

`connections.py` puts it around BentoML's app, because BentoML's own layers cost more than it does. A request passes,
from the outside in:

1. `CORSMiddleware`, if the settings name origins.
2. `RequestMiddleware`, one object per request (`_RequestCycle`), in these steps:
   `__init__` gives the request an id and a deadline, `_check_head` asks for an API key and refuses a WebSocket,
   `_read_body` reads the body within its limit and refuses a compressed one, `run` calls the service until the
   deadline, `record` writes the metrics and the access log.
   One class does all of it, because every layer of middleware costs time in every request.
3. `ShortPath`, which responds to plain requests for images of seeds itself.
4. `ProblemMiddleware`, which turns every error response into problem details.
5. BentoML, and the FastAPI app of `app.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
from typing import Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rae_serve.server import logs, metrics, problems
from rae_serve.server.catalog import Catalog
from rae_serve.server.connections import DECLINED_UPGRADE
from rae_serve.server.keys import ApiKeys
from rae_serve.server.problems import REQUEST_ID, ProblemMiddleware
from rae_serve.server.schemas import HEADER_LENGTH
from rae_serve.server.settings import Settings
from rae_serve.server.short_path import ShortPath
from rae_serve.server.waiting import DEADLINE, ClientLeft, client_left_response

_VALID_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_KEY_NEEDED: Final = "a key is needed: send the header Authorization: Bearer KEY, with a key that the server knows"
# A request id is this prefix and a number. The prefix is drawn once per process: drawing it for every request
# would give up the GIL to another thread each time.
_ID_PREFIX: Final = secrets.token_hex(6).encode()
_numbers: Final = itertools.count()
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def front(app: ASGIApp, catalog: Catalog) -> ASGIApp:
    """Return an app behind all of the middleware."""
    settings = catalog.settings
    app = RequestMiddleware(ShortPath(ProblemMiddleware(app), catalog), settings)
    if settings.cors_origins:  # outside the check of the key, because a browser's preflight request sends no key
        return _Cors(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match", "X-Request-Id", HEADER_LENGTH],
            expose_headers=[
                "ETag",
                "RAE-Digest",
                "RAE-Model",
                "RAE-Seed",
                "Retry-After",
                "X-Request-Id",
                HEADER_LENGTH,
            ],
        )
    return app


class FrontRequired:
    """ASGI middleware inside of BentoML that refuses requests which have not passed `front`.

    A server that is started in another way has no front, and would serve everybody without a key.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and REQUEST_ID not in scope:
            detail = "this server checks no keys and has no limits; start it by `rae-serve serve` or `bentoml serve`"
            await problems.response(500, detail)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class _Cors(CORSMiddleware):
    """Starlette's CORS middleware, which refuses a preflight request with problem details."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight request."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        refusal = problems.response(response.status_code, bytes(response.body).decode())
        for name, value in response.headers.items():
            refusal.headers.setdefault(name, value)
        return refusal


class RequestMiddleware:
    """ASGI middleware that checks the key, limits the body and the time, and logs and counts every request."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.keys = ApiKeys(settings.api_keys or ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        cycle = _RequestCycle(scope, receive, send, self.settings)
        try:
            await cycle.run(self.app, self.keys)
        finally:
            cycle.record()


class _Refused(Exception):
    """The request is refused. Its body may not have been read to the end, so the connection must be closed."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        self.response = problems.response(status, detail, headers={"Connection": "close", **headers})


class _RequestCycle:
    """One request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: Settings) -> None:
        self.method: str = scope["method"]
        # HEAD is answered wherever GET is, and in the same way; the connection leaves the body out.
        self.scope = {**scope, "method": "GET"} if self.method == "HEAD" else scope
        self._receive, self._send, self.settings = receive, send, settings
        self.began = time.monotonic()
        self.status = 499  # the client left; overwritten when a response starts
        self.headers = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.id = given if _VALID_ID.fullmatch(given) else b"%s-%x" % (_ID_PREFIX, next(_numbers))
        self.body: bytes | None = None  # None before the body has been read and after the service has taken it
        self.body_bytes = 0
        self.response_started = False
        self.scope[REQUEST_ID] = self.id.decode()
        self.scope[DEADLINE] = self.began + settings.max_seconds

    async def run(self, app: ASGIApp, keys: ApiKeys) -> None:
        """Check the head, read the body, and let the service respond until the deadline."""
        body_is_read = False
        try:
            self._check_head(keys)
            async with asyncio.timeout(self.settings.max_seconds):
                self.body = await self._read_body()
                body_is_read = True
                await app(self.scope, self.receive, self.send)
        except _Refused as refused:
            await refused.response(self.scope, self._receive, self.send)
        except TimeoutError:
            if not body_is_read:
                await self._too_slow().response(self.scope, self._receive, self.send)
                return
            metrics.DROPPED.labels("expired").inc()
            if not self.response_started:
                await problems.expired_response()(self.scope, self._receive, self.send)
        except ClientLeft:
            await client_left_response()(self.scope, self._receive, self.send)
        except Exception:
            self.status = 500
            raise

    async def receive(self) -> Message:
        """Give the service the whole body as one message, and then what the client sends next."""
        if self.body is None:
            return await self._receive()
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Send a message of the service to the client; add the id to the headers."""
        if message["type"] == "http.response.start":
            self.response_started = True
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self.id)]
        await self._send(message)

    def record(self) -> None:
        """Count the request in the metrics and write its line in the access log."""
        ms = (time.monotonic() - self.began) * 1e3
        method = self.method if self.method in _METHODS else "other"
        route = getattr(self.scope.get("route"), "path", "other")
        metrics.REQUESTS.labels(method, route, self.status).inc()
        metrics.LATENCY.labels(route).observe(ms)
        if self.settings.access_log:
            client = self.scope.get("client")
            facts = {
                "id": self.id.decode(),
                "client": client[0] if client else None,
                "method": self.method,
                "path": self.scope["path"],
                "status": self.status,
                "ms": round(ms, 2),
                "bytes_in": self.body_bytes,
            }
            logs.write_request(facts)

    def _check_head(self, keys: ApiKeys) -> None:
        """Refuse a request without its key, and a WebSocket."""
        if challenge := keys.challenge(self.scope, self.headers):
            raise _Refused(401, _KEY_NEEDED, **{"WWW-Authenticate": challenge})
        if self.headers.get(DECLINED_UPGRADE, b"").lower() == b"websocket":
            raise _Refused(404, f"there is no WebSocket at {self.scope['path']}; /docs lists the addresses")

    async def _read_body(self) -> bytes:
        """Read the whole body first, so that no route sees a body that is too large or too slow."""
        declared = self.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.settings.max_body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            parts.append(message.get("body", b""))
            self.body_bytes += len(parts[-1])
            if self.body_bytes > self.settings.max_body_bytes:
                raise self._too_large()
            more = message.get("more_body", False)
        coding = self.headers.get(b"content-encoding", b"").strip().lower().decode("latin-1")
        if coding not in ("", "identity"):
            problem = f"the body has the Content-Encoding {coding}; send it uncompressed, without this header"
            raise _Refused(415, problem, **{"Accept-Encoding": "identity"})
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_slow(self) -> _Refused:
        return _Refused(408, f"the body did not arrive within {self.settings.max_seconds:g} s")

    def _too_large(self) -> _Refused:
        metrics.DROPPED.labels("too_large").inc()
        return _Refused(413, f"the body is larger than the limit of {self.settings.max_body_bytes} bytes")
