"""The report: one HTML file with everything in it, for someone who did not train the model."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final, NamedTuple

from training.evaluation.figures import Figures
from training.evaluation.report.verdict import Finding, Grade, summary

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
h2 { margin-top: 2.5rem } img { max-width: 100%; display: block }
img.pixels { image-rendering: pixelated; width: 100%; max-width: 44rem; background: #888 }
figure { margin: 1rem 0 } figcaption { color: #555; max-width: 44rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .3rem .8rem
.3rem 0; border-bottom: 1px solid #ddd } pre { background: #f4f4f4; padding: 1rem; overflow-x: auto; font-size: 13px }
.verdict { padding: 1rem 1.2rem; border-left: .6rem solid; font-size: 1.15rem }
.good { border-color: #2a7d3f } .doubtful { border-color: #c98a00 } .bad { border-color: #b3261e }
td.good { color: #2a7d3f } td.doubtful { color: #8f6200 } td.bad { color: #b3261e }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e6e6e6 } pre { background: #262626 }
figcaption { color: #aaa } td, th { border-color: #444 } img:not(.pixels) { background: #fff }
td.good { color: #6fca85 } td.doubtful { color: #eebd55 } td.bad { color: #ff8a80 } }
"""
_WORDS: Final[dict[Grade, str]] = {"good": "✓ good", "doubtful": "? doubtful", "bad": "✗ bad"}


class Picture(NamedTuple):
    """A PNG under a heading; `pixels` for images of the model, which are enlarged without smoothing."""

    title: str
    caption: str
    png: bytes
    pixels: bool = True


def html(document: Mapping[str, Any], found: Sequence[Finding], pictures: Sequence[Picture]) -> str:
    """The whole page: the verdict and its reasons first, then pictures, then every figure and how to repeat it."""
    grade, sentence = summary(found)
    subject, data = document["subject"], document["data"]
    parts = [
        f"<h1>{escape(subject['name'])}</h1>",
        f"<p>A {escape(subject['model'])} model by the recipe {escape(subject['recipe'])}, trained for "
        f"{subject['training']['steps']:,} steps on {subject['training']['images']:,} images of "
        f"{escape(subject['training']['data'])}. Evaluated as a {escape(subject['kind'])} on "
        f"{data['compared']:,} images of the {escape(data['split'])} split that it has not seen.</p>",
        f'<p class="verdict {grade}"><strong>{escape(sentence)}</strong></p>',
        _findings(found),
        *(_picture(picture) for picture in pictures),
        "<h2>Every figure</h2>",
        _figures(document["figures"]),
        "<h2>To repeat it</h2>",
        f"<pre>{escape(json.dumps({k: v for k, v in document.items() if k != 'figures'}, indent=1))}</pre>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(subject['name'])}: evaluation</title><style>{_STYLE}</style></head>\n"
        f"<body>{chr(10).join(parts)}</body></html>\n"
    )


def _findings(found: Sequence[Finding]) -> str:
    rows = [
        f'<tr><td class="{finding.grade}"><strong>{_WORDS[finding.grade]}</strong></td>'
        f"<td><strong>{escape(finding.question)}</strong><br>{escape(finding.found)}<br>"
        f"<small>{escape(finding.threshold)}</small></td></tr>"
        for finding in found
    ]
    return (
        f"<table>{''.join(rows)}</table><p><small>The thresholds are rae-serve's own, set on models of MNIST that "
        "were good and that were broken on purpose. They say where to look; the pictures are for looking.</small></p>"
    )


def _picture(picture: Picture) -> str:
    encoded = base64.b64encode(picture.png).decode()
    kind = ' class="pixels"' if picture.pixels else ""
    return (
        f"<h2>{escape(picture.title)}</h2><figure>"
        f'<img{kind} src="data:image/png;base64,{encoded}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _figures(figures: Figures) -> str:
    rows = [
        f"<tr><td>{escape(name)}</td><td>{escape(key)}</td><td>{escape(_value(value))}</td></tr>"
        for name, entries in figures.items()
        for key, value in entries.items()
    ]
    return f"<table><tr><th>metric</th><th>of</th><th>value</th></tr>{''.join(rows)}</table>"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(entry)}" for key, entry in value.items())
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)
