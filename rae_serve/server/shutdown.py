"""How a server ends on SIGTERM without losing a request.

The processes of a server share one listening socket. BentoML's own way loses requests: its workers stop to accept
connections, and those that arrive until the last worker has ended are reset. Ours takes four steps:

1. Each worker answers 503 to `/readyz`, and closes each connection with its next response. It goes on accepting
   connections: a load balancer needs some time to notice.
2. After `drain_seconds` the main process makes the kernel ignore new connections. The workers accept the last ones.
3. The main process stops to listen: a proxy that tries to connect is refused at once, and takes another server.
4. Each worker finishes its requests and ends.

A second SIGTERM ends the first step. Ctrl-C sends SIGINT to the workers too, which then skip these steps.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import uvicorn
from bentoml._internal.utils.circus import Arbiter

from rae_serve.server.connections import Connection

_LAST_ACCEPTS_S: Final = 0.5  # between steps 2 and 3; a worker accepts connections many times in it
_POLL_S: Final = 0.1
_DROP_EVERYTHING: Final = struct.pack("HBBI", 6, 0, 0, 0)  # the BPF program `return 0`
_SO_ATTACH_FILTER: Final = 26  # Linux; Python's socket module does not name it


def install(drain_seconds: float, on_drain: Callable[[], None]) -> None:
    """Make the main process and the workers end in the steps above.

    BentoML starts both and has no option for this, so the function changes BentoML's and uvicorn's classes.

    Args:
        drain_seconds: How long a server goes on accepting connections after SIGTERM.
        on_drain: Called in each worker at the first step.
    """
    stop_workers = Arbiter.stop

    def stop(arbiter: Arbiter) -> Any:
        listeners = list(arbiter.sockets.values())
        seconds = 0.0 if arbiter._stopping else drain_seconds  # nothing, if this is a second signal
        arbiter.loop.call_later(seconds, _ignore_connections, listeners)
        arbiter.loop.call_later(seconds + _LAST_ACCEPTS_S, _refuse_connections, listeners)
        return stop_workers(arbiter)

    Arbiter.stop = stop
    # A worker that gets SIGTERM alone sees no end of listening; the others go on with the socket.
    _Server.drain_limit_s = drain_seconds + 2 * _LAST_ACCEPTS_S
    _Server.on_drain = staticmethod(on_drain)
    uvicorn.Server = _Server  # type: ignore[misc]


class _Server(uvicorn.Server):
    """uvicorn's server in a worker, which drains before it shuts down."""

    drain_limit_s: float
    on_drain: Callable[[], None]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain if SIGTERM ended the server, then finish the requests."""
        if self._captured_signals == [signal.SIGTERM]:
            await self._drain(sockets or [])
        await super().shutdown(sockets)

    async def _drain(self, sockets: list[socket.socket]) -> None:
        """Serve until the main process has stopped to listen, or Ctrl-C."""

        def ignore_end_of_listening(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if all(map(_listens, sockets)) or not isinstance(context.get("exception"), OSError):
                loop.default_exception_handler(context)

        asyncio.get_running_loop().set_exception_handler(ignore_end_of_listening)
        Connection.draining = True
        self.on_drain()
        end = time.monotonic() + self.drain_limit_s
        while time.monotonic() < end and all(map(_listens, sockets)) and not self.force_exit:
            await self.on_tick(0)  # keeps the Date header right
            await asyncio.sleep(_POLL_S)


def _listens(listener: socket.socket) -> bool:
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _ignore_connections(listeners: Iterable[socket.socket]) -> None:
    """Make the kernel drop what arrives for a listening socket; clients try again within a second or so.

    A connection that is accepted already, or waits to be, is not affected.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_DROP_EVERYTHING)
    for listener in listeners:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def _refuse_connections(listeners: Iterable[socket.socket]) -> None:
    """Stop to listen, in all processes that share the sockets."""
    for listener in listeners:
        with suppress(OSError):  # not every system can do this to a listening socket
            listener.shutdown(socket.SHUT_RD)
