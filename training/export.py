"""Checkpoint → bundle: three ONNX graphs, their manifest and golden arrays, checked against torch on the way."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rae_serve import bundle, noise, parity
from rae_serve.bundle import Bundle, Parity
from rae_serve.engine import Engine
from rae_serve.images import Pixels
from training.autoencoder import Autoencoder, Pruning
from training.data import to_pixels
from training.runs import Run
from training.trainer import encode_all, reconstruct

OPSET: Final = 18
IR_VERSION: Final = 9  # torch writes 10, which onnxruntime 1.17 refuses
QUANTILES: Final = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
_GOLDEN_ROWS: Final = 64


class PriorGraph(nn.Module):
    """noise float32 [B, noise_dim] → latent float32 [B, latent_dim]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.prior = model.prior

    def forward(self, noise: Tensor) -> Tensor:
        return self.prior(noise)


class DecoderGraph(nn.Module):
    """latent float32 [B, latent_dim] → image uint8 [B, H, W, C]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        return to_pixels(self.model.decode(latent))


class EncoderGraph(nn.Module):
    """image uint8 [B, H, W, C] → latent float32 [B, latent_dim]."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.encode(image.permute(0, 3, 1, 2).float() / 255.0)


class GeneratorGraph(nn.Module):
    """noise float32 [B, noise_dim] → image uint8 [B, H, W, C]: prior and decoder in one."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.prior = PriorGraph(model)
        self.decode = DecoderGraph(model)

    def forward(self, noise: Tensor) -> Tensor:
        return self.decode(self.prior(noise))


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
        "schema_version": bundle.SCHEMA_VERSION,
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
        f"{name}.onnx": _to_onnx(name, graph, {input_name: torch.from_numpy(rows)}, output_name, facts)
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


def _to_onnx(
    name: str, graph: nn.Module, example: Mapping[str, Tensor], output: str, facts: Mapping[str, Any]
) -> bytes:
    (input_name,) = example
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own internals
        program = torch.onnx.export(
            graph.eval(),
            kwargs=dict(example),
            input_names=[input_name],
            output_names=[output],
            dynamic_shapes={input_name: {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    model.graph.name = name
    model.doc_string = graph.__doc__ or ""
    # The exporter notes where in whose source each node comes from; that is nobody else's business.
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    del model.metadata_props[:]
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"rae_serve.{key}", json.dumps(value)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


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
