"""Checkpoint → bundle: three ONNX graphs, their manifest and golden arrays, checked against torch on the way."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from rae_serve import bundle, noise, parity
from rae_serve.arrays import Pixels
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.manifest import SCHEMA_VERSION, Parity
from training.autoencoder import Autoencoder, Pruning
from training.export.graphs import IR_VERSION, OPSET, to_onnx
from training.inference import (
    DecoderGraph,
    EncoderGraph,
    GeneratorGraph,
    PriorGraph,
    encode_all,
    reconstruct,
)
from training.runs import Run

QUANTILES: Final = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
_GOLDEN_ROWS: Final = 64


def export(run: Run, out: Path, *, fused: bool = False, prune: bool = True, best: bool = False) -> Bundle:
    """Write a bundle of a run's latest checkpoint to the folder `out`, or of the one with the least held-out error.

    Of a masked model it holds what the mask leaves, unless `prune` is off.

    Raises BundleError where a graph differs from torch by more than rounding; `out` is then not there.
    """
    trained, state = run.load(best=best)
    images = run.reference()
    codes = encode_all(trained, images, np.arange(len(images)), torch.device("cpu"))
    mean = torch.from_numpy(codes.mean(axis=0))
    pruning = trained.prune(mean) if prune else trained.whole()
    model = pruning.model
    facts = {
        "schema_version": SCHEMA_VERSION,
        "created_by": f"rae-serve {version('rae-serve')}",
        "licence": run.recipe.licence,
        "model": {
            "kind": run.recipe.model,
            "recipe": run.recipe.name,
            "parameters": run.recipe.parameters,
        },
        "image": run.preprocessing.model_dump(),
        "latent": _latent_facts(codes, pruning),
        "noise": {"dim": model.prior.noise_dim, "algorithm": noise.ALGORITHM, "roles": model.prior.roles},
        "training": run.training_facts(state),
        "precision": "float32",
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "tolerance_grey_levels": 1,
    }
    golden = _golden(trained, pruning, mean)
    examples = {
        "prior": (PriorGraph(model), "noise", golden["noise"], "latent"),
        "decoder": (DecoderGraph(model), "latent", golden["latent"], "image"),
        "encoder": (EncoderGraph(model), "image", golden["image"], "latent"),
    }
    if fused:
        examples["generator"] = (GeneratorGraph(model), "noise", golden["noise"], "image")
    contents = {
        f"{name}.onnx": to_onnx(name, graph, {input_name: torch.from_numpy(rows)}, output_name, facts)
        for name, (graph, input_name, rows, output_name) in examples.items()
    }
    contents[bundle.GOLDEN] = _npz(golden)
    cost = _pruning_cost(trained, model, images) if len(pruning.active) < codes.shape[1] else None
    measured = _measured(facts, contents).model_copy(update={"pruning_grey_levels": cost})
    return bundle.write(out, facts | {"parity": measured}, contents)


def _pruning_cost(trained: Autoencoder, pruned: Autoencoder, images: Pixels) -> float:
    """Mean |Δ| of reconstructions in grey levels, of the trained model against its active dimensions alone."""
    cpu = torch.device("cpu")
    difference = reconstruct(trained, images, cpu).astype(np.int64) - reconstruct(pruned, images, cpu)
    return round(float(np.abs(difference).mean()), 4)


def _latent_facts(codes: np.ndarray, pruning: Pruning) -> dict[str, Any]:
    trained_dim = codes.shape[1]
    codes = codes[:, pruning.active].astype(np.float64)
    return {
        "dim": codes.shape[1],
        "trained_dim": trained_dim,
        "active": pruning.active,
        "mask": pruning.mask,
        "mean": codes.mean(axis=0).round(6).tolist(),
        "std": codes.std(axis=0).round(6).tolist(),
        "quantile_levels": list(QUANTILES),
        "quantiles": np.quantile(codes, QUANTILES, axis=0).round(6).tolist(),
    }


@torch.no_grad()
def _golden(trained: Autoencoder, pruning: Pruning, mean: Tensor) -> dict[str, np.ndarray]:
    """What the graphs must compute, by the model as it was trained, with dropped dimensions at their mean [m]."""
    rows = torch.from_numpy(noise.normals(0, 0, _GOLDEN_ROWS, pruning.model.prior.noise_dim))
    latent = PriorGraph(pruning.model)(rows)
    hard_masked = mean.repeat(len(latent), 1)
    hard_masked[:, pruning.active] = latent
    image = DecoderGraph(trained)(hard_masked)
    encoded = EncoderGraph(trained)(image)[:, pruning.active]
    arrays = {"noise": rows, "latent": latent, "image": image, "encoded": encoded}
    return {name: array.contiguous().numpy() for name, array in arrays.items()}


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _measured(facts: Mapping[str, Any], contents: Mapping[str, bytes]) -> Parity:
    """The parity of a bundle that is not written yet; BundleError where it is worse than rounding explains."""
    unmeasured = Parity(batch_sizes=list(parity.BATCH_SIZES), prior=0.0, decoder_grey_levels=0, encoder=0.0)
    draft = Bundle(Path("draft"), bundle.describe({**facts, "parity": unmeasured}, contents), contents)
    engine = Engine(draft, device="cpu")
    try:
        measured = parity.measure(engine, draft.golden())
    finally:
        engine.close()
    parity.check(measured, draft.manifest.tolerance_grey_levels)
    return measured
