"""The model card of a bundle: its manifest, in words for people."""

from __future__ import annotations

from rae_serve.manifest import Manifest


def model_card(manifest: Manifest, name: str) -> str:
    """Markdown: what the model is, where it comes from, how good it was measured to be, how to use it."""
    height, width, channels = manifest.image.shape
    training = manifest.training
    lines = [
        f"# {name}",
        "",
        f"A {manifest.model.kind} model by the recipe `{manifest.model.recipe}`, trained for "
        f"{training.steps:,} steps (seed {training.seed}) on {training.images:,} images of {training.data}. "
        f"It makes images of {height} × {width} × {channels} from {manifest.noise.dim} numbers of noise, "
        f"through a latent space of {manifest.latent.dim} dimensions.",
        "",
        f"Licence: {manifest.licence}. Made by {manifest.created_by}. Digest: `{manifest.digest}`.",
        "",
        "It has seen nothing but its training images, and invents nothing that is not like them; what they lack or "
        "misrepresent, it lacks and misrepresents too.",
        "",
        "## Figures",
        "",
        "| | | |",
        "|---|---|---|",
        *(f"| {key} | {figure.value:g} | {figure.protocol} |" for key, figure in manifest.quality.items()),
        f"| parity | {manifest.parity.decoder_grey_levels} grey levels | ONNX against torch, the golden images |",
        "",
        "## Use",
        "",
        "In the folder that holds it:",
        "",
        "```sh",
        f"rae-serve sample {name} -n 16 --seed 7 --out grid.png",
        f"RAE_SERVE_BUNDLES={name} bentoml serve rae_serve.service:RaeServe",
        "```",
        "",
        "Without rae-serve: noise float32 [B, noise_dim] ~ N(0, I) → `prior.onnx` → `decoder.onnx` → uint8 "
        "[B, H, W, C].",
        "",
    ]
    return "\n".join(lines)
