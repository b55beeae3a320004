"""Pages from Jinja templates, which lie beside the code that fills them."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment(folder: Path, *, html: bool) -> Environment:
    """Return the environment of the templates in a folder. A variable that is missing is an error.

    Args:
        folder: The folder of the templates.
        html: Whether the pages are HTML, so that text is escaped; otherwise they are Markdown.
    """
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
