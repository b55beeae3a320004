"""What the package raises: every message names the value that was wrong and says what to do."""

from __future__ import annotations


class RaeServeError(Exception):
    """Base of all errors that a caller is meant to read."""


class InvalidInput(RaeServeError):
    """A value that the caller gave cannot be used. `field` names where it stood."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class BundleError(RaeServeError):
    """A bundle is missing, damaged, or of another version than this reader's."""


class RunError(RaeServeError):
    """A training run cannot start, go on, or be read."""


class MissingExtra(RaeServeError, ImportError):
    """An optional package is not installed; the message has the command that installs it."""

    def __init__(self, package: str, command: str) -> None:
        super().__init__(f"this needs {package}, which is not installed: {command}")


class Overloaded(RaeServeError):
    """More work waits than the service accepts; try again after `retry_after_s` seconds."""

    def __init__(self, waiting_rows: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting_rows} rows are waiting already; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class NotFound(RaeServeError):
    """What was asked for by name or address does not exist."""


class Expired(RaeServeError):
    """A request waited longer than the service's time limit; nothing was computed for it any more."""

    def __init__(self) -> None:
        super().__init__("the request waited longer than the server's time limit; try again, or ask for less at once")
