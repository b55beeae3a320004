"""Checkpoint to bundle: ONNX graphs, a manifest and golden arrays, checked against torch before they are written."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rae_serve import bundle, golden, noise, parity, projection
from rae_serve.arrays import Latents, Pixels
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import BundleError, RunError
from rae_serve.images import encode_npz
from rae_serve.manifest import LATENT_TOLERANCE, SCHEMA_VERSION, Latent, Parity, Precision, Tolerance
from training.autoencoder import Autoencoder, Exportable
from training.export import graphs, rewriting
from training.export.graphs import DecoderGraph, EncoderGraph, PriorGraph
from training.inference import Inference
from training.runs import Origin, Run

QUANTILES: Final = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
# The largest differences from torch in float32. On the shipped models, weights in float16 make 0.0017 and 1.
TOLERANCES: Final[dict[Precision, Tolerance]] = {
    "float32": Tolerance(latents=LATENT_TOLERANCE, grey_levels=1),
    "float16-weights": Tolerance(latents=0.01, grey_levels=2),
}
# generator.onnx repeats the weights of two files. A larger one would cost more than the convenience is worth.
MAX_GENERATOR_BYTES: Final = 64_000_000
_GOLDEN_ROWS: Final = 64
_CPU: Final = torch.device("cpu")


def export(
    run: Run,
    out: Path,
    *,
    precision: Precision = "float32",
    generator: bool | None = None,
    prune: bool = True,
    best: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Write the bundle of a run.

    Args:
        run: The run.
        out: The bundle's folder; it appears whole or not at all.
        precision: How the graphs hold the weights of their layers.
        generator: Whether to add generator.onnx, prior and decoder in one graph; None adds it up to
            MAX_GENERATOR_BYTES.
        prune: Whether to leave out the latent dimensions that a mask has closed.
        best: Whether to take the checkpoint with the least error on held-out images in place of the latest.
        overwrite: Whether to replace a bundle that is at `out` already.

    Raises:
        RunError: The checkpoint's prior is not fitted yet.
        RaeServeError: `out` is in use or cannot be written.
        BundleError: The results of a graph differ from torch's by more than the tolerance of the precision.
    """
    bundle.check_new(out, overwrite=overwrite)
    trained, state = run.load(best=best)
    if not trained.sampler.fitted:
        raise RunError(_unfitted(run, best))
    images = run.reference()
    latents = Inference(trained, _CPU).encode(images)
    mean = run.mean_latent(trained)
    exportable = trained.for_export(mean, prune=prune)
    model = exportable.model
    facts = {
        "schema_version": SCHEMA_VERSION,
        "created_by": f"rae-serve {version('rae-serve')}",
        "licence": run.recipe.licence,
        "model": {"kind": run.recipe.model, "recipe": run.recipe.name, "parameters": run.recipe.parameters},
        "image": run.data.preprocessing.model_dump(),
        "latent": _latent_facts(latents, exportable, run.origin),
        "noise": {"dim": model.sampler.noise_dim, "algorithm": noise.ALGORITHM, "roles": model.sampler.roles},
        "training": run.training_facts(state),
        "opset": graphs.OPSET,
        "ir_version": graphs.IR_VERSION,
        "tolerance": TOLERANCES[precision].model_dump(),
    }
    arrays = _golden_arrays(trained, exportable, mean)
    examples = {
        "prior": (PriorGraph(model), "noise", arrays["noise"], "latent"),
        "decoder": (DecoderGraph(model), "latent", arrays["latent"], "image"),
        "encoder": (EncoderGraph(model), "image", arrays["image"], "latent"),
    }
    onnx_files = {
        name: graphs.to_onnx(name, graph, {input_name: torch.from_numpy(rows)}, output_name, facts)
        for name, (graph, input_name, rows, output_name) in examples.items()
    }
    if precision == "float16-weights":
        onnx_files = {name: rewriting.with_float16_weights(graph) for name, graph in onnx_files.items()}
    size = len(onnx_files["prior"]) + len(onnx_files["decoder"])
    if size <= MAX_GENERATOR_BYTES if generator is None else generator:
        onnx_files[bundle.GENERATOR] = rewriting.joined(onnx_files["prior"], onnx_files["decoder"])
    facts["precision"] = {name: rewriting.precision(graph) for name, graph in onnx_files.items()}
    contents = {f"{name}.onnx": graph for name, graph in onnx_files.items()} | {bundle.GOLDEN: encode_npz(arrays)}
    # Not in the graphs' metadata: other versions of LAPACK differ in the last digits, and the digest must not.
    kept = latents[:, exportable.active].astype(np.float64)
    prior = Inference(model, _CPU).latents(projection.PRIOR_ROWS, projection.PRIOR_SEED).astype(np.float64)
    latent = projection.describe(Latent.model_validate(facts["latent"]), kept, prior)
    facts["latent"] = latent
    map_name, drawn = projection.file_of(projection.draw(latent, kept, prior))
    facts["map"], contents[map_name] = map_name, drawn
    cost = _pruning_cost(trained, model, images) if len(exportable.active) < latents.shape[1] else None
    measured, vectors = _measure(facts, contents)
    facts["parity"] = measured.model_copy(update={"pruning_grey_levels": cost})
    return bundle.write(out, facts, contents | {bundle.VECTORS: vectors}, overwrite=overwrite)


def _unfitted(run: Run, best: bool) -> str:
    if best:
        return (
            f"{run.path}: the checkpoint of least held-out error comes from before the prior was fitted, so its "
            "samples would be useless; export the latest checkpoint, without --best, or fit a prior to this one: "
            f"rae-serve fit {run.path} --best --prior …"
        )
    return f"{run.path} is not finished: its prior is fitted at the end; go on with `rae-serve train … --resume`"


def _pruning_cost(trained: Autoencoder, pruned: Autoencoder, images: Pixels) -> float:
    """Return the mean difference in grey levels between reconstructions of the trained and of the pruned model."""
    whole, part = (Inference(model, _CPU).reconstruct(images).astype(np.int64) for model in (trained, pruned))
    return round(float(np.abs(whole - part).mean()), 4)


def _latent_facts(latents: Latents, exportable: Exportable, origin: Origin | None) -> dict[str, Any]:
    kept = latents[:, exportable.active].astype(np.float64)
    return {
        "dim": kept.shape[1],
        # A run that took over a pruned auto-encoder has the dimensions that were left.
        "trained_dim": origin.trained_dim if origin else latents.shape[1],
        "active": origin.active if origin else exportable.active,
        "mask": origin.mask if origin else exportable.mask,
        "mean": kept.mean(axis=0).round(6).tolist(),
        "std": kept.std(axis=0).round(6).tolist(),
        "quantile_levels": list(QUANTILES),
        "quantiles": np.quantile(kept, QUANTILES, axis=0).round(6).tolist(),
    }


@torch.no_grad()
def _golden_arrays(trained: Autoencoder, exportable: Exportable, mean: Tensor) -> dict[str, npt.NDArray[Any]]:
    """Return what the graphs must compute: results of the trained model, with pruned dimensions at their mean [m]."""
    rows = torch.from_numpy(noise.normals(golden.NPZ_SEED, 0, _GOLDEN_ROWS, exportable.model.sampler.noise_dim))
    latent = PriorGraph(exportable.model)(rows)
    hard_masked = mean.repeat(len(latent), 1)
    hard_masked[:, exportable.active] = latent
    image = DecoderGraph(trained)(hard_masked)
    encoded = EncoderGraph(trained)(image)[:, exportable.active]
    arrays = {"noise": rows, "latent": latent, "image": image, "encoded": encoded}
    return {name: array.contiguous().numpy() for name, array in arrays.items()}


def _measure(facts: Mapping[str, Any], contents: Mapping[str, bytes]) -> tuple[Parity, bytes]:
    """Measure the parity of a bundle that is not written yet, and compute its golden vectors.

    Raises:
        BundleError: The parity exceeds the tolerance.
    """
    unmeasured = Parity(batch_sizes=list(parity.BATCH_SIZES), prior=0.0, decoder_grey_levels=0, encoder=0.0)
    draft = Bundle(Path("draft"), bundle.describe({**facts, "parity": unmeasured}, contents), contents)
    engine = Engine(draft, device="cpu")
    try:
        measured = parity.measure(engine, draft.golden())
        parity.check(measured, draft.manifest.tolerance)
        return measured, golden.vectors(engine)
    except BundleError as error:
        if set(draft.manifest.precision.values()) == {"float32"}:
            raise
        raise BundleError(f"{error}; this model needs --precision float32") from None
    finally:
        engine.close()
