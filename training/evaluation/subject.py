"""The model that is evaluated: a run in torch or a bundle on ONNX Runtime, with the same interface."""

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
    """A model and where it comes from.

    Row i of a seed gives the same image from a run as from its bundle, up to rounding.

    Attributes:
        name: The name of the folder.
        facts: What identifies the model in `evaluation.json`.
        data_name: The name of the data set of the training.
        data_digest: The digest of the training images.
        training_images: The number of training images.
        preprocessing: How pictures become images of the model.
        trained_dim: The latent dimension of the training, before pruning.
    """

    name: str
    facts: dict[str, Any]
    data_name: str
    data_digest: str
    training_images: int
    preprocessing: Preprocessing
    trained_dim: int

    @property
    def source(self) -> str | None:
        """The data set of the training as `--data` names it; None for a bundle."""
        ...

    def latents(self, count: int, seed: int) -> Codes:
        """Return the prior's latents, [count, m], of rows 0 to count − 1 of a seed."""
        ...

    def decode(self, latents: Codes) -> Pixels:
        """Decode latents, [N, m], to images, uint8 [N, H, W, C]."""
        ...

    def encode(self, images: Pixels) -> Codes:
        """Encode images, uint8 [N, H, W, C], to latents, [N, m]."""
        ...


class BundleSubject:
    """A bundle on ONNX Runtime, as it is served."""

    source: str | None = None

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
    """A run in torch at one of its checkpoints.

    Args:
        run: The run.
        device: Where the model runs.
        path: The checkpoint; by default the latest of the run.
    """

    def __init__(self, run: Run, device: torch.device, path: Path | None = None) -> None:
        self._run = run
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
        self.data_name = run.data_name
        self.data_digest = run.data_digest
        self.training_images = run.images
        self.preprocessing = run.preprocessing
        self.trained_dim = model.prior.latent_dim

    @property
    def source(self) -> str:
        return self._run.data()

    def latents(self, count: int, seed: int) -> Codes:
        return self._inference.latents(count, seed)

    def decode(self, latents: Codes) -> Pixels:
        return self._inference.decode(latents)

    def encode(self, images: Pixels) -> Codes:
        return self._inference.encode(images)


def load(path: Path, device: torch.device) -> Subject:
    """Load the run or the bundle in a folder. Raise RaeServeError if the folder holds neither."""
    if (path / RECORD).is_file():
        return RunSubject(Run.open(path), device)
    if (path / MANIFEST).is_file():
        # ONNX Runtime may lack CUDA where torch has it, so a missing provider is no error.
        return BundleSubject(Bundle.load(path), "auto" if device.type == "cuda" else "cpu")
    raise RaeServeError(f"{path} is neither a run (it has no {RECORD}) nor a bundle (no {MANIFEST})")


def checkpoints(path: Path, device: torch.device) -> Iterator[RunSubject]:
    """Yield the run in a folder at each checkpoint that it has kept. Yield nothing for a bundle."""
    if (path / RECORD).is_file():
        for file in checkpoint.paths(path / checkpoint.CHECKPOINTS):
            yield RunSubject(Run.open(path), device, file)
