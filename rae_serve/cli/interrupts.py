"""Ctrl-C at any moment: one line on stderr, and status 130."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

STATUS: Final = 130  # 128 + SIGINT, as from a shell


def handle() -> None:
    """From now on, the first Ctrl-C raises KeyboardInterrupt, so that drafts are deleted; the second ends at once."""
    _on_interrupt(_raise)


def end_at_once() -> None:
    """From now on, Ctrl-C ends the process at once."""
    _on_interrupt(_end)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End the process at once on Ctrl-C in this block: for imports, which may wrap or lose a KeyboardInterrupt."""
    usual = signal.getsignal(signal.SIGINT)
    end_at_once()
    try:
        yield
    finally:
        _on_interrupt(usual)


def _on_interrupt(handler: Any) -> None:
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a shell ignores it for its background jobs
    if not ignored and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)


def _raise(*_: object) -> None:
    end_at_once()
    raise KeyboardInterrupt


def _end(*_: object) -> None:
    os.write(2, b"rae-serve: interrupted\n")
    os._exit(STATUS)
