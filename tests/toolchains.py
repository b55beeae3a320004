"""Programs that a test needs, and a machine may lack."""

from __future__ import annotations

import os

import pytest


def require(found: object, what: str) -> None:
    """Skip the test if a program is missing; fail it in CI, where .ci/run installs the programs.

    Args:
        found: The program's path, or whatever is true where the program is there.
        what: The name of the program, for the message.
    """
    if not found:
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop(f"{what} is not installed")
