"""Await the engine's results, and watch whether the client is still connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from os import cpu_count
from typing import Any, Final, TypeVar

from fastapi import Request, Response

from rae_serve.errors import Expired, Overloaded
from rae_serve.server import metrics, problems

Result = TypeVar("Result")

DEADLINE: Final = "rae_serve.deadline"  # a key of the ASGI scope; the value is a time of time.monotonic()
# Most results come sooner. Only after this time is it worth the cost to watch for a disconnect.
_UNWATCHED_S: Final = 0.05
# Up to this size, decoding and encoding take less time than handing the work to another thread.
_AT_ONCE_BYTES: Final = 32 * 1024
# Threads that decode and encode pictures, one per core. The codecs release the GIL.
_picture_threads = ThreadPoolExecutor(cpu_count() or 1, thread_name_prefix="pictures")


class ClientLeft(Exception):
    """The client has closed its connection, so there is nobody to respond to."""


_DROP_REASONS: Final = {Overloaded: "overloaded", Expired: "expired", ClientLeft: "abandoned"}


def client_left_response() -> Response:
    """Return the response after ClientLeft. No client receives it, but BentoML's middleware waits for a response."""
    return Response(status_code=499, media_type=problems.MEDIA_TYPE)


async def result(request: Request, submit: Callable[[float], Future[Result]]) -> Result:
    """Await a result of the engine; cancel it if the client disconnects or the deadline passes.

    Args:
        request: The request that the result is for.
        submit: Starts the work, given the deadline of the request as a time of time.monotonic().

    Raises:
        Overloaded: Too many rows wait already.
        Expired: The rows still waited at the deadline.
        ClientLeft: The client disconnected.
    """
    try:
        return await _watched(request, asyncio.wrap_future(submit(request.scope[DEADLINE])))
    except (Overloaded, Expired, ClientLeft) as error:
        metrics.DROPPED.labels(_DROP_REASONS[type(error)]).inc()
        raise


async def in_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    """Await `work(*arguments)`, run in a thread for pictures, so that the event loop can serve others meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(_picture_threads, work, *arguments)


async def in_thread_if_large(size: int, work: Callable[[], Result]) -> Result:
    """Await `work()`, in a thread for pictures if it reads or writes more than a few bytes.

    Args:
        size: The bytes that the work reads or writes.
        work: The work.
    """
    return work() if size <= _AT_ONCE_BYTES else await in_thread(work)


async def _watched(request: Request, waiting: asyncio.Future[Result]) -> Result:
    left = False
    watcher: asyncio.Task[None] | None = None

    def leave(_: asyncio.Task[None]) -> None:
        nonlocal left
        left = not waiting.done()
        waiting.cancel()

    def watch() -> None:
        nonlocal watcher
        watcher = asyncio.ensure_future(_disconnect(request))
        watcher.add_done_callback(leave)

    timer = asyncio.get_running_loop().call_later(_UNWATCHED_S, watch)
    try:
        return await waiting
    except asyncio.CancelledError:
        if left:
            raise ClientLeft from None
        raise  # the middleware cancels this task at the deadline
    finally:
        timer.cancel()
        if watcher:
            watcher.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
