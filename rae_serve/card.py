"""The model card of a bundle: the facts of its manifest as a page for people, and for the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from rae_serve.data_sets import ON_THE_HUB
from rae_serve.manifest import Manifest

# What the Hugging Face Hub calls the licences that weights and data sets of images usually have. Any other licence is
# "other" to it, with a name of its own.
_LICENCES: Final = {
    *("apache-2.0", "bsd-2-clause", "bsd-3-clause", "mit", "mpl-2.0", "unlicense", "odbl", "openrail", "unknown"),
    *("gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
}


def model_card(manifest: Manifest, name: str) -> str:
    """Return the card as Markdown: the model, its origin, its measured figures, and how to use it."""
    height, width, channels = manifest.image.shape
    training = manifest.training
    lines = [
        *_front_matter(manifest),
        f"# {name}",
        "",
        f"A {manifest.model.kind} model, trained by the recipe `{manifest.model.recipe}` for "
        f"{training.steps:,} steps (seed {training.seed}) on {training.images:,} images of {training.data}. "
        f"It turns {manifest.noise.dim} numbers of noise into latents of {manifest.latent.dim} dimensions, "
        f"and the latents into images of {height} × {width} × {channels}.",
        "",
        f"Licence: {manifest.licence}. Made by {manifest.created_by}. Digest: `{manifest.digest}`.",
        "",
        "The model knows its training images only: the images that it makes resemble them, and what is missing or "
        "misrepresented in them is missing or misrepresented here too.",
        "",
        "## Figures",
        "",
        "| figure | value | protocol |",
        "|---|---|---|",
        *(f"| {key} | {figure.value:g} | {figure.protocol} |" for key, figure in manifest.quality.items()),
        f"| parity | {manifest.parity.decoder_grey_levels} grey levels | ONNX against torch, on the golden images |",
        "",
        "## Use",
        "",
        "In the folder above this one:",
        "",
        "```sh",
        f"rae-serve sample {name} -n 16 --seed 7 --out grid.png",
        f"rae-serve serve {name}",
        "```",
        "",
        "Without rae-serve, in any ONNX runtime: noise, float32 [B, noise_dim] from N(0, I) → `prior.onnx` → "
        "`decoder.onnx` → images, uint8 [B, H, W, C].",
        "",
    ]
    return "\n".join(lines)


def _front_matter(manifest: Manifest) -> list[str]:
    """Return the metadata that the Hugging Face Hub reads from a card, as lines of YAML."""
    licence = "unknown" if manifest.licence == "unspecified" else manifest.licence.lower()
    known = licence in _LICENCES
    data = ON_THE_HUB.get(manifest.training.data)
    fields: dict[str, Any] = {
        "license": licence if known else "other",
        # A name may have these characters only; the licence's own words stand in the text of the card.
        "license_name": None if known else re.sub("[^a-z0-9.]+", "-", licence).strip("-") or None,
        "library_name": "rae-serve",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["onnx", "auto-encoder", manifest.model.kind],
        "datasets": [data] if data else None,
        "metrics": list(manifest.quality) or None,
    }
    # JSON is valid YAML.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value is not None]
    return ["---", *lines, "---", ""]
