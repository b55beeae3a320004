"""How the tests wait: never without a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def wait_until(condition: Callable[[], Result], seconds: float, what: str, *, pause: float = 0.01) -> Result:
    """Call `condition` again and again until its result is true, and return that result.

    Args:
        condition: What to wait for. An exception that it raises ends the wait.
        seconds: The limit: the test fails when the condition is not true after this time.
        what: The awaited state, for the message of the failure.
        pause: The seconds between two calls.
    """
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(pause)
    return result
