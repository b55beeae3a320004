"""The server's log: one JSON object per line, on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


class JsonLines(logging.Formatter):
    """Format a record as JSON: time, level, logger and message, and the entries of its `facts` dictionary."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line. JSON escapes line breaks in the message."""
        facts = getattr(record, "facts", {})
        if record.exc_info:
            facts = facts | {"exception": self.formatException(record.exc_info)}
        return _line(record.created, record.levelname.lower(), record.name, record.getMessage(), facts)


def write_request(facts: Mapping[str, Any]) -> None:
    """Write the line of a request to stderr.

    There is one for every request, so it does not pass Python's logging, which takes ten times as long.

    Args:
        facts: What to say about the request, in JSON's types.
    """
    with suppress(OSError):  # a reader of the log that is gone is no error of the request
        sys.stderr.write(_line(time.time(), "info", "rae_serve.access", "answered", facts) + "\n")


def install() -> None:
    """Send the log of this package to stderr as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("rae_serve")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _line(created: float, level: str, logger: str, message: str, facts: Mapping[str, Any]) -> str:
    line = {"time": round(created, 3), "level": level, "logger": logger, "message": message, **facts}
    # The name of a file may hold bytes that are not UTF-8; Python keeps them as lone surrogates.
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
