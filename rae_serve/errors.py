"""The exceptions of rae-serve. Every message names the wrong value and says what to do."""

from __future__ import annotations


class RaeServeError(Exception):
    """Base class of all errors whose message is meant for the user."""


class InvalidInput(RaeServeError):
    """A value from the caller cannot be used; `field` names the input that held the value."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class BundleError(RaeServeError):
    """A bundle is missing, damaged, or has a schema version that this release cannot read."""


class RunError(RaeServeError):
    """A training run cannot be started, resumed or read."""


class MissingExtra(RaeServeError, ImportError):
    """An optional package is not installed; the message contains the command that installs the package."""

    def __init__(self, package: str, command: str) -> None:
        super().__init__(f"this needs {package}, which is not installed; run: {command}")


class Overloaded(RaeServeError):
    """Too many rows are queued to accept more; the caller may try again after `retry_after_s` seconds."""

    def __init__(self, waiting_rows: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting_rows} rows are waiting already; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class NotFound(RaeServeError):
    """The model, attribute or address that the caller names does not exist."""


class Expired(RaeServeError):
    """A request reached its deadline in the queue; its remaining rows were not computed."""

    def __init__(self) -> None:
        super().__init__("the request waited longer than the server's time limit; try again, or ask for less at once")
