"""The model card of a bundle: the facts of its manifest as a page for people, and for the Hugging Face Hub."""

from __future__ import annotations

import json
from typing import Any, Final

from rae_serve.data_sets import ON_THE_HUB
from rae_serve.manifest import Manifest

# The names that the hub has for licences, of those that weights and data sets of images usually have. The hub calls
# any other one "other", and takes its own name beside it.
_LICENCES_OF_THE_HUB: Final = frozenset(
    "apache-2.0 bsd-2-clause bsd-3-clause cc cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 "
    "cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 "
    "cc-by-nc-nd-4.0 gpl-2.0 gpl-3.0 lgpl-3.0 agpl-3.0 mit mpl-2.0 odbl openrail unlicense".split()
)
_UNKNOWN: Final = {"unspecified": "unknown"}  # the default of a recipe, in the hub's word


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
    licence = _UNKNOWN.get(manifest.licence, manifest.licence).lower()
    known = licence in _LICENCES_OF_THE_HUB or licence in _UNKNOWN.values()
    data = ON_THE_HUB.get(manifest.training.data)
    facts: dict[str, Any] = {
        "license": licence if known else "other",
        "license_name": None if known else manifest.licence,
        "library_name": "rae-serve",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["onnx", "auto-encoder", manifest.model.kind],
        "datasets": [data] if data else None,
        "metrics": list(manifest.quality) or None,
    }
    # A value in JSON is one in YAML too.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items() if value is not None]
    return ["---", *lines, "---", ""]
