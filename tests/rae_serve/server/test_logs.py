"""The lines of the server's log, which other programs read."""

from __future__ import annotations

import json
import logging

from rae_serve.server import logs


def test_a_record_is_one_line_of_json_whatever_its_text():
    record = logging.makeLogRecord({"msg": "two\nlines, and a name that is not UTF-8: \udce9", "levelname": "ERROR"})
    line = logs.JsonLines().format(record)
    assert line.encode().count(b"\n") == 0
    assert json.loads(line)["message"] == "two\nlines, and a name that is not UTF-8: \udce9"
    assert json.loads(line)["level"] == "error"
