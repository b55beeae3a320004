"""Time limits for slow clients. By itself uvicorn waits for such a client forever."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Request line and headers together. With h11 uvicorn has this limit; with httptools it has none.
MAX_HEAD_BYTES: Final = 65_536


def limit_slow_clients(seconds: float) -> None:
    """Make every uvicorn connection of this process a `LimitedConnection`.

    BentoML starts uvicorn and has no option for this, so the function changes uvicorn's table of protocols.

    Args:
        seconds: The longest time for the head of a request, and the longest time in which a client reads nothing
            of a response that waits for it.
    """
    LimitedConnection.limit_s = seconds
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:LimitedConnection"


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection, closed if a request's head does not arrive or a response is not read in time.

    The time for the body and for the response itself is limited in `middleware.py`.
    """

    limit_s: float

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
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
