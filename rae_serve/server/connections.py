"""Our connections: uvicorn's, with time limits for slow clients, without upgrades, and with problems as errors.

By itself uvicorn waits for a slow client forever, loses the body of a request that offers an upgrade, and refuses
bytes that are not HTTP in plain text.

The workers of a server accept connections at one socket. asyncio accepts all that wait there at once, so that one
worker may get them all while the others have nothing to do.
"""

from __future__ import annotations

import asyncio
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable
from typing import Any, Final

import httptools
import uvicorn.config
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rae_serve.server import problems

# Request line and headers together. With h11 uvicorn has this limit; with httptools it has none.
MAX_HEAD_BYTES: Final = 65_536
DECLINED_UPGRADE: Final = b"declined-upgrade"  # the header in which the service sees what upgrade was offered


def install(seconds: float, front: Callable[[ASGIApp], ASGIApp]) -> None:
    """Make every uvicorn connection of this process a `Connection`, and accept them one by one.

    BentoML starts uvicorn and has no option for this, so the function changes uvicorn's table of protocols and a
    method of asyncio's event loops.

    Args:
        seconds: The longest time for the head of a request, and the longest time in which a client reads nothing
            of a response that waits for it.
        front: Puts our middleware around BentoML's app. BentoML can only put it inside of its own layers, which take
            longer than the middleware.
    """
    Connection.limit_s = seconds
    Connection.front = staticmethod(front)
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:Connection"
    BaseSelectorEventLoop._accept_connection = _accept_one  # type: ignore[attr-defined]  # not in the stubs


_accept_connections = BaseSelectorEventLoop._accept_connection  # type: ignore[attr-defined]  # not in the stubs


def _accept_one(
    loop: BaseSelectorEventLoop, factory: object, listener: object, ssl: object, server: object, _: int, *more: object
) -> None:
    """Replace asyncio's method that accepts the connections which wait at a socket: accept one of them."""
    _accept_connections(loop, factory, listener, ssl, server, 1, *more)


def _fronted(app: Any, front: Callable[[ASGIApp], Any]) -> Any:
    """Put the front around an app, but inside of uvicorn's own middleware, which finds a client behind a proxy."""
    if isinstance(app, ProxyHeadersMiddleware):
        app.app = front(app.app)  # type: ignore[arg-type]  # the same protocol, in uvicorn's own types
        return app
    return front(app)


class _Parser(httptools.HttpRequestParser):
    """httptools' parser, which stops behind the head of a request that offers an upgrade; this one goes on."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own parser
        self._connection = connection

    def feed_data(self, data: Any) -> None:
        """Parse bytes. A request that offers an upgrade is parsed again, without the offer, by a new parser."""
        parser = self
        while True:
            try:
                return super(_Parser, parser).feed_data(data)
            except httptools.HttpParserUpgrade as stop:
                if not self._connection._should_upgrade():
                    raise
                data = self._connection.head_without_upgrade() + data[stop.args[0] :]
                self._connection.parser = parser = _Parser(self._connection)

    def should_keep_alive(self) -> bool:
        """Return whether the connection stays open after the response. uvicorn tells the client if it does not."""
        return not Connection.draining and bool(super().should_keep_alive())


class Connection(HttpToolsProtocol):
    """uvicorn's connection, closed if a request's head does not arrive or a response is not read in time.

    The time for the body and for the response itself is limited in `middleware.py`. No upgrade is accepted, be it
    HTTP/2 or WebSocket: the request is handled as if it did not offer one (RFC 9110, section 7.8).
    """

    draining = False  # whether the process closes each connection with its next response
    limit_s: float
    front: Callable[[ASGIApp], ASGIApp]
    fronted: Any = None  # the ASGI app of all connections of the process, made for the first of them

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if Connection.fronted is None:
            Connection.fronted = _fronted(self.app, Connection.front)
        self.app = Connection.fronted
        self.parser = _Parser(self)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start to wait for the head of the first request."""
        super().connection_made(transport)
        self._head_timer = self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both timers."""
        for timer in (self._head_timer, self._read_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop the head's timer if the head is complete, else count its bytes and go on waiting."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_bytes = 0
            if self._head_timer:
                self._head_timer.cancel()
                self._head_timer = None
            return
        self._head_timer = self._head_timer or self._start_timer()
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def head_without_upgrade(self) -> bytes:
        """Return the head of the current request, with its Upgrade header renamed to DECLINED_UPGRADE."""
        method, version = self.scope["method"].encode(), self.scope["http_version"].encode()
        names = {b"upgrade": DECLINED_UPGRADE}
        headers = [b"%s: %s" % (names.get(name, name), value) for name, value in self.headers]
        return b"\r\n".join([b"%s %s HTTP/%s" % (method, self.url, version), *headers, b"", b""])

    def _should_upgrade(self) -> bool:
        """Make uvicorn ignore a head that is to be parsed again. CONNECT is an upgrade even without the header."""
        return self.scope["method"] != "CONNECT"

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not HTTP, and close the connection."""
        refusal = problems.response(400, msg, headers={"Connection": "close"})
        headers = [*self.server_state.default_headers, *refusal.raw_headers]
        lines = [b"HTTP/1.1 400 Bad Request", *(b"%s: %s" % header for header in headers), b"", bytes(refusal.body)]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()

    def pause_writing(self) -> None:
        """Start to wait for the client to read: the write buffer is full."""
        super().pause_writing()
        self._read_timer = self._read_timer or self._start_timer()

    def resume_writing(self) -> None:
        """Stop waiting: the client has read."""
        super().resume_writing()
        if self._read_timer:
            self._read_timer.cancel()
            self._read_timer = None

    def _start_timer(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.limit_s, self.transport.abort)
