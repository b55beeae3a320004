"""Connections of clients who take their time: uvicorn itself would wait for them for ever."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Of a request line and its headers: uvicorn's own limit where it runs on h11; on httptools it has none.
MAX_HEAD_BYTES: Final = 65_536


def limit(seconds: float) -> None:
    """Let no connection of this process take longer for the head of a request, nor for what waits to be read.

    BentoML starts uvicorn without a way to say so; its table of protocols is where a name becomes a class.
    """
    Connection.limit_s = seconds
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:Connection"


class Connection(HttpToolsProtocol):
    """uvicorn's, with an end to waiting for a request's head, and for a client who does not read its answer."""

    limit_s: float

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Wait for a head."""
        super().connection_made(transport)
        self._head = self._limited()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        for timer in (self._head, self._unread):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a head, where this is not all of it; once it has come, others watch the time."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_bytes = 0
            if self._head:
                self._head.cancel()
                self._head = None
            return
        self._head = self._head or self._limited()
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._unread = self._unread or self._limited()

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        if self._unread:
            self._unread.cancel()
            self._unread = None

    def _limited(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.limit_s, self.transport.abort)
