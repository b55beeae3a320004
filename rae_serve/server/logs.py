"""The server's log: one JSON object per line, on stderr."""

from __future__ import annotations

import json
import logging


class JsonLines(logging.Formatter):
    """Format a record as JSON: time, level, logger and message, and the entries of its `facts` dictionary."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line. JSON escapes line breaks in the message."""
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # The name of a file may hold bytes that are not UTF-8; Python keeps them as lone surrogates.
        return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def install() -> None:
    """Send the log of this package to stderr as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("rae_serve")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
