"""Tables as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def csv_file(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows with equal keys as a CSV file with a heading. None is an empty cell."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()
