"""The model that is evaluated: a run in torch or a bundle on ONNX Runtime, with the same interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rae_serve.arrays import Latents, Pixels
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import RaeServeError
from rae_serve.files import printable
from rae_serve.manifest import MANIFEST, Training
from rae_serve.preprocessing import Preprocessing
from rae_serve.sessions import Device
from training import checkpoint
from training.inference import Inference
from training.runs import RECORD, Run


@dataclass(frozen=True)
class Subject:
    """A model and where it comes from.

    Row i of a seed gives the same image from a run as from its bundle, up to rounding.

    Attributes:
        name: The name of the folder.
        facts: What identifies the model in `evaluation.json`.
        training: The training that made the weights.
        default_source: Returns the data set of the training as `--data` names it.
        preprocessing: How pictures become images of the model.
        trained_dim: The latent dimension of the training, before pruning.
        encode: Encodes images, uint8 [N, H, W, C], to latents [N, m].
        decode: Decodes latents [N, m] to images, uint8 [N, H, W, C].
        latents: Returns latents of the prior, [count, m], given the count and a seed: rows 0 to count − 1.
    """

    name: str
    facts: dict[str, Any]
    training: Training
    default_source: Callable[[], str]
    preprocessing: Preprocessing
    trained_dim: int
    encode: Callable[[Pixels], Latents]
    decode: Callable[[Latents], Pixels]
    latents: Callable[[int, int], Latents]


def of_bundle(bundle: Bundle, device: Device) -> Subject:
    """Return a bundle on ONNX Runtime, as it is served."""
    manifest = bundle.manifest
    engine = Engine(bundle, device=device)
    return Subject(
        name=bundle.name,
        facts={
            "kind": "bundle",
            "digest": manifest.digest,
            "recipe": manifest.model.recipe,
            "model": manifest.model.kind,
            "training": manifest.training.model_dump(),
            "runs_on": f"ONNX Runtime, {engine.device}",
        },
        training=manifest.training,
        default_source=lambda: manifest.training.data,
        preprocessing=manifest.image,
        trained_dim=manifest.latent.trained_dim,
        encode=engine.encode,
        decode=engine.decode,
        latents=lambda count, seed: engine.latents(engine.noise(count, seed=seed)),
    )


def of_run(run: Run, device: torch.device, path: Path | None = None) -> Subject:
    """Return a run in torch.

    Args:
        run: The run.
        device: Where the model runs.
        path: The file of the checkpoint; None means the latest of the run.
    """
    state = checkpoint.read(path) if path else checkpoint.latest(run.path / checkpoint.CHECKPOINTS)
    inference = Inference(run.model_at(state).to(device), device)
    training = run.training_facts(state)
    return Subject(
        name=printable(run.path.resolve().name),
        facts={
            "kind": "run",
            "digest": state.digest,
            "recipe": run.recipe.name,
            "model": run.recipe.model,
            "training": training,
            "runs_on": f"torch, {device.type}",
        },
        training=Training(**training),
        default_source=run.image_source,
        preprocessing=run.data.preprocessing,
        trained_dim=inference.model.sampler.latent_dim,
        encode=inference.encode,
        decode=inference.decode,
        latents=inference.latents,
    )


def load(path: Path, device: torch.device) -> Subject:
    """Load the run or the bundle in a folder. Raise RaeServeError if the folder holds neither."""
    if (path / RECORD).is_file():
        return of_run(Run.open(path), device)
    if (path / MANIFEST).is_file():
        # ONNX Runtime may lack CUDA where torch has it, so a missing provider is no error.
        return of_bundle(Bundle.load(path), "auto" if device.type == "cuda" else "cpu")
    raise RaeServeError(f"{path} is neither a run (it has no {RECORD}) nor a bundle (no {MANIFEST})")


def checkpoints(path: Path, device: torch.device) -> Iterator[Subject]:
    """Yield the run in a folder at each checkpoint that it has kept. Yield nothing for a bundle."""
    if (path / RECORD).is_file():
        for file in checkpoint.paths(path / checkpoint.CHECKPOINTS):
            yield of_run(Run.open(path), device, file)
