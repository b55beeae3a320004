"""The report: one HTML file with everything in it, for readers who did not train the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from training.evaluation.report.verdict import Finding
from training.templates import environment

_TEMPLATE: Final = "report.html.jinja"


class Picture(NamedTuple):
    """A PNG file with a title and a caption.

    Attributes:
        title: The heading.
        caption: What to look for.
        png: The file.
        pixels: Whether the picture shows images of the model, which are enlarged without smoothing.
    """

    title: str
    caption: str
    png: bytes
    pixels: bool = True


def html(document: Mapping[str, Any], findings: Sequence[Finding], pictures: Sequence[Picture]) -> str:
    """Render the page: the verdict and its reasons, then pictures, then every figure and how to repeat it.

    Args:
        document: The contents of `evaluation.json`.
        findings: The findings of the verdict, in their order.
        pictures: The pictures, in their order.
    """
    pages = environment(Path(__file__).parent, html=True)
    pages.filters["figure"] = _figure
    return pages.get_template(_TEMPLATE).render(
        document=document,
        findings=findings,
        pictures=pictures,
        protocol=json.dumps({key: value for key, value in document.items() if key != "figures"}, indent=1),
    )


def _figure(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_figure(entry)}" for key, entry in value.items())
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)
