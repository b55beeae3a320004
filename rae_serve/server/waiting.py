"""Waiting for an engine's futures, as long as there is somebody to answer and time to do it in."""

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

DEADLINE: Final = "rae_serve.deadline"  # in the ASGI scope, of time.monotonic
# What is done sooner is not worth watching its client for.
_UNWATCHED_S: Final = 0.05
# Pictures are decoded and encoded beside the model, a core each: the codecs free the GIL.
_pictures = ThreadPoolExecutor(cpu_count() or 1, thread_name_prefix="pictures")


class ClientLeft(Exception):
    """The client has closed its connection; there is nobody to answer."""


def to_nobody() -> Response:
    """The answer after ClientLeft. Nobody hears it, but BentoML's middleware waits for one."""
    return Response(status_code=499, media_type=problems.MEDIA_TYPE)


async def result(request: Request, submit: Callable[[float], Future[Result]]) -> Result:
    """What `submit`, given the deadline, will have made. A client who leaves cancels it.

    Raises Overloaded, Expired or ClientLeft, each of them counted.
    """
    try:
        return await _watched(request, asyncio.wrap_future(submit(request.scope[DEADLINE])))
    except Overloaded:
        metrics.DROPPED.labels("overloaded").inc()
        raise
    except Expired:
        metrics.DROPPED.labels("expired").inc()
        raise
    except ClientLeft:
        metrics.DROPPED.labels("abandoned").inc()
        raise


async def in_thread(work: Callable[..., Result], *arguments: Any) -> Result:
    """`work(*arguments)`, beside everything else."""
    return await asyncio.get_running_loop().run_in_executor(_pictures, work, *arguments)


async def _watched(request: Request, waiting: asyncio.Future[Result]) -> Result:
    leaving: asyncio.Future[None] | None = None
    try:
        await asyncio.wait((waiting,), timeout=_UNWATCHED_S)
        if not waiting.done():
            leaving = asyncio.ensure_future(_left(request))
            await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientLeft
        return waiting.result()
    finally:  # also where the request's time is up, and this is cancelled
        waiting.cancel()
        if leaving:
            leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
