"""The server's log: a JSON object a line, on stderr."""

from __future__ import annotations

import json
import logging


class JsonLines(logging.Formatter):
    """Time, level, logger and message, and whatever stands in the record's `facts`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def install() -> None:
    """Write the log of this package as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("rae_serve")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
