"""Pages that are rendered from the templates of a folder."""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment(*folders: Path, html: bool) -> Environment:
    """Return the environment of the templates in some folders, with the filter `base64` for bytes.

    Args:
        folders: Where templates are looked for, in this order.
        html: Whether the pages are HTML, in which values are escaped, and not Markdown.
    """
    made = Environment(
        loader=FileSystemLoader(folders),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
    )
    made.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return made
