"""The model card of a bundle: the facts of its manifest as a page for people."""

from __future__ import annotations

from rae_serve.manifest import Manifest


def model_card(manifest: Manifest, name: str) -> str:
    """Return the card as Markdown: the model, its origin, its measured figures, and how to use it."""
    height, width, channels = manifest.image.shape
    training = manifest.training
    lines = [
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
