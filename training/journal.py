"""What a run writes down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

METRICS: Final = "metrics.jsonl"
SHOWN: Final = 64  # images in a grid


@contextmanager
def quiet_threads() -> Iterator[None]:
    """TensorBoard writes in a thread of its own, where a full disk is a traceback beside our one clear error."""
    usual = threading.excepthook
    threading.excepthook = lambda args: None if isinstance(args.exc_value, OSError) else usual(args)
    try:
        yield
    finally:
        threading.excepthook = usual
