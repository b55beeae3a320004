"""Waiting for an engine's futures, as long as there is somebody to answer and time to do it in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from os import cpu_count
from typing import Any, Final, TypeVar

from fastapi import Request

from rae_serve import metrics
from rae_serve.errors import Expired, Overloaded

Result = TypeVar("Result")

DEADLINE: Final = "rae_serve.deadline"  # in the ASGI scope, of time.monotonic
# What is done sooner is not worth watching its client for.
_UNWATCHED_S: Final = 0.05
# Pictures are decoded and encoded beside the model, a core each: the codecs free the GIL.
_pictures = ThreadPoolExecutor(cpu_count() or 1, thread_name_prefix="pictures")


class ClientLeft(Exception):
    """The client has closed its connection; there is nobody to answer."""


def deadline(request: Request) -> float:
    """When the request's time is up, of time.monotonic."""
    until: float = request.scope[DEADLINE]
    return until


async def result(request: Request, submit: Callable[[float], Future[Result]]) -> Result:
    """What `submit`, given the deadline, will have made. A client who leaves cancels it.

    Raises Overloaded, Expired or ClientLeft, each of them counted.
    """
    until = deadline(request)
    try:
        return await _watched(request, asyncio.wrap_future(submit(until)), until)
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


async def _watched(request: Request, waiting: asyncio.Future[Result], until: float) -> Result:
    await asyncio.wait((waiting,), timeout=_UNWATCHED_S)
    if waiting.done():
        return waiting.result()
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait(
            (waiting, leaving),
            timeout=max(0.0, until - time.monotonic()),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if waiting.done():
            return waiting.result()
        raise ClientLeft if leaving.done() else Expired()
    finally:
        waiting.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
