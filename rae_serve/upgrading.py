"""Upgrade bundles of earlier versions of the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rae_serve import bundle as bundles
from rae_serve import golden
from rae_serve.bundle import GENERATOR, VECTORS, Bundle
from rae_serve.engine import Engine


def upgrade(bundle: Bundle, out: Path | None = None, join: Callable[[bytes, bytes], bytes] | None = None) -> Bundle:
    """Write a bundle in the latest version of the format, with the files that it lacks.

    The files that it has stay as they are, and so do its images and its digest.

    Args:
        bundle: The bundle.
        out: A new folder for the upgraded bundle; None upgrades it in place. Other programs then see the bundle as it
            was or as it will be.
        join: Makes generator.onnx of prior.onnx and decoder.onnx; None adds no such file.

    Raises:
        RaeServeError: The folder is in use or cannot be written. The bundle is then as it was before.
    """
    added = {}
    facts = bundle.manifest.model_dump(exclude={"files", "digest"})
    if VECTORS not in bundle.contents:
        engine = Engine(bundle, device="cpu")
        try:
            added[VECTORS] = golden.vectors(engine)
        finally:
            engine.close()
    if join and f"{GENERATOR}.onnx" not in bundle.contents:
        added[f"{GENERATOR}.onnx"] = join(bundle.graph("prior"), bundle.graph("decoder"))
        facts["precision"][GENERATOR] = facts["precision"]["decoder"]
    if out is not None:
        return bundles.write(out, facts, {**bundle.contents, **added})
    return bundles.annotate(bundle, added=added, **facts)
