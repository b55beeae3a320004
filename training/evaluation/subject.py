"""What is evaluated: a run's model in torch, or a bundle on ONNX Runtime. Pixels in and out, either way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from rae_serve.arrays import Pixels
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import RaeServeError
from rae_serve.manifest import MANIFEST
from rae_serve.preprocessing import Preprocessing
from rae_serve.sessions import Device
from training import checkpoint
from training.inference import Inference
from training.runs import RECORD, Run

Codes = npt.NDArray[np.float32]  # [N, m]


class Subject(Protocol):
    """A model and where it comes from. Row i of a seed is the same image from a run as from its bundle."""

    name: str
    facts: dict[str, Any]
    source: str | None
    data_name: str
    data_digest: str
    training_images: int
    preprocessing: Preprocessing
    trained_dim: int

    def latents(self, count: int, seed: int) -> Codes:
        """The prior's latents of rows 0 … count − 1 of a seed."""
        ...

    def decode(self, latents: Codes) -> Pixels:
        """Images, uint8 [N, H, W, C], of latents."""
        ...

    def encode(self, images: Pixels) -> Codes:
        """Latents of images, uint8 [N, H, W, C]."""
        ...


class BundleSubject:
    """A bundle, as it would be served."""

    source = None

    def __init__(self, bundle: Bundle, device: Device) -> None:
        manifest = bundle.manifest
        self._engine = Engine(bundle, device=device)
        self.name = bundle.name
        self.facts = {
            "kind": "bundle",
            "digest": manifest.digest,
            "recipe": manifest.model.recipe,
            "model": manifest.model.kind,
            "training": manifest.training.model_dump(),
            "runs_on": f"ONNX Runtime, {self._engine.device}",
        }
        self.data_name = manifest.training.data
        self.data_digest = manifest.training.data_digest
        self.training_images = manifest.training.images
        self.preprocessing = manifest.image
        self.trained_dim = manifest.latent.trained_dim

    def latents(self, count: int, seed: int) -> Codes:
        return self._engine.latents(self._engine.noise(count, seed=seed))

    def decode(self, latents: Codes) -> Pixels:
        return self._engine.decode(latents)

    def encode(self, images: Pixels) -> Codes:
        return self._engine.encode(images)


class RunSubject:
    """A run at one of its checkpoints, the latest unless told."""

    def __init__(self, run: Run, device: torch.device, path: Path | None = None) -> None:
        state = checkpoint.read(path) if path else checkpoint.latest(run.path / checkpoint.CHECKPOINTS)
        model = run.model_at(state).to(device)
        self._inference = Inference(model, device)
        self.name = run.path.resolve().name
        self.step = state.step
        self.facts = {
            "kind": "run",
            "digest": state.digest,
            "recipe": run.recipe.name,
            "model": run.recipe.model,
            "training": run.training_facts(state),
            "runs_on": f"torch, {device.type}",
        }
        self.source = run.source
        self.data_name = run.data_name
        self.data_digest = run.data_digest
        self.training_images = run.images
        self.preprocessing = run.preprocessing
        self.trained_dim = model.prior.latent_dim

    def latents(self, count: int, seed: int) -> Codes:
        return self._inference.latents(count, seed)

    def decode(self, latents: Codes) -> Pixels:
        return self._inference.decode(latents)

    def encode(self, images: Pixels) -> Codes:
        return self._inference.encode(images)


def load(path: Path, device: torch.device) -> Subject:
    """The run or bundle in a folder. Raises RaeServeError where it is neither."""
    if (path / RECORD).is_file():
        return RunSubject(Run.open(path), device)
    if (path / MANIFEST).is_file():
        # Where torch has CUDA, ONNX Runtime need not.
        return BundleSubject(Bundle.load(path), "auto" if device.type == "cuda" else "cpu")
    raise RaeServeError(f"{path} is neither a run (it has no {RECORD}) nor a bundle (no {MANIFEST})")


def checkpoints(path: Path, device: torch.device) -> Iterator[RunSubject]:
    """A run at every checkpoint that it has kept; none of a bundle."""
    if (path / RECORD).is_file():
        for file in checkpoint.paths(path / checkpoint.CHECKPOINTS):
            yield RunSubject(Run.open(path), device, file)
