"""The model that is evaluated: a run in torch or a bundle on ONNX Runtime, with the same interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from rae_serve import noise
from rae_serve.arrays import Pixels
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import RaeServeError
from rae_serve.manifest import MANIFEST
from rae_serve.preprocessing import Preprocessing
from rae_serve.sessions import Device
from training import checkpoint
from training.inference import DecoderGraph, EncoderGraph, PriorGraph
from training.runs import RECORD, Run

Codes = npt.NDArray[np.float32]  # [N, m]

_BATCH: Final = 250


class Subject(Protocol):
    """A model and where it comes from.

    Row i of a seed gives the same image from a run as from its bundle, up to rounding.

    Attributes:
        name: The name of the folder.
        facts: What identifies the model in `evaluation.json`.
        source: The data set of the training as `--data` named it; None for a bundle.
        data_name: The name of the data set of the training.
        data_digest: The digest of the training images.
        training_images: The number of training images.
        preprocessing: How pictures become images of the model.
        trained_dim: The latent dimension of the training, before pruning.
    """

    name: str
    facts: dict[str, Any]
    source: str | None
    data_name: str
    data_digest: str
    training_images: int
    preprocessing: Preprocessing
    trained_dim: int

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
        model, state = run.load()
        if path:
            state = checkpoint.read(path)
            model.load_state_dict(state.section("model"))
        self._device = device
        self._noise_dim = model.prior.noise_dim
        self._graphs = {
            "prior": PriorGraph(model).to(device).eval(),
            "decoder": DecoderGraph(model).to(device).eval(),
            "encoder": EncoderGraph(model).to(device).eval(),
        }
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
        self.source: str | None = run.source
        self.data_name = run.data_name
        self.data_digest = run.data_digest
        self.training_images = run.images
        self.preprocessing = run.preprocessing
        self.trained_dim = model.prior.latent_dim

    def latents(self, count: int, seed: int) -> Codes:
        return self._run("prior", noise.normals(seed, 0, count, self._noise_dim))

    def decode(self, latents: Codes) -> Pixels:
        return self._run("decoder", latents)

    def encode(self, images: Pixels) -> Codes:
        return self._run("encoder", images)

    @torch.no_grad()
    def _run(self, name: str, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        graph = self._graphs[name]
        parts = (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
        found = [graph(torch.from_numpy(np.ascontiguousarray(part)).to(self._device)).cpu() for part in parts]
        return torch.cat(found).contiguous().numpy()


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
        for state in sorted((path / "checkpoints").glob("step-*.json")):
            yield RunSubject(Run.open(path), device, state)
