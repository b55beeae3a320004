"""What is evaluated: a run's model in torch, or a bundle on ONNX Runtime. Pixels in and out, either way."""

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
from rae_serve.engine import Device, Engine
from rae_serve.errors import RaeServeError
from rae_serve.manifest import MANIFEST
from rae_serve.preprocessing import Preprocessing
from training import checkpoint
from training.inference import DecoderGraph, EncoderGraph, PriorGraph
from training.runs import RECORD, Run

Codes = npt.NDArray[np.float32]  # [N, m]

_BATCH: Final = 250


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
        self.source = run.source
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
        for state in sorted((path / "checkpoints").glob("step-*.json")):
            yield RunSubject(Run.open(path), device, state)
