"""Checkpoints of a run: one safetensors file each, written whole or not at all, and never unpickled.

The file's own metadata holds what is not a tensor, as JSON, and the SHA-256 over that and the tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from rae_serve import files
from rae_serve.errors import RaeServeError, RunError

CHECKPOINTS: Final = "checkpoints"  # the folder of the latest checkpoints, in the run's folder
BEST: Final = "best"  # the folder of the checkpoint with the least error on held-out images
KEPT: Final = 2  # the latest checkpoint, and the one before it in case the latest is damaged
_STEP, _FACTS, _DIGEST = "step", "facts", "sha256"  # keys of the metadata


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` steps.

    Attributes:
        step: Steps of all stages so far.
        tensors: Tensors by section and name: model/…, optimizer/…, random/….
        facts: What is not a tensor.
        digest: SHA-256 over step, tensors and facts.
    """

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    digest: str

    def section(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of one section by their names within it."""
        prefix = f"{name}/"
        return {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}


class Part(Protocol):
    """A part of a run's state whose tensors are a section of a checkpoint; a torch module is one."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        ...

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> object:
        """Go back to what `state_dict` returned."""
        ...


class OptimizerPart:
    """The moments and counters of an optimiser, named parameter/entry."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def state_dict(self) -> dict[str, Tensor]:
        state = self._optimizer.state_dict()["state"]
        return {f"{index}/{entry}": value for index, entries in state.items() for entry, value in entries.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `state_dict` returned; moments keep the memory layout of their parameters."""
        groups = self._optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, entry = key.split("/")
            like = parameters[int(index)]
            moment = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(index), {})[entry] = moment
        groups_alone = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups_alone})


class RandomPart:
    """The state of torch's random generators: the CPU's and, where the run uses it, the CUDA device's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def state_dict(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(tensors["cpu"])
        if "cuda" in tensors:
            torch.cuda.set_rng_state(tensors["cuda"], self._device)


def encode(step: int, parts: Mapping[str, Part], facts: Mapping[str, Any]) -> bytes:
    """Return the bytes of a checkpoint, which `decode` reads.

    Args:
        step: Steps of all stages so far.
        parts: The sections of the state, by name.
        facts: What is not a tensor, in JSON's types.
    """
    tensors = {
        f"{section}/{name}": value.detach().cpu().contiguous()
        for section, part in parts.items()
        for name, value in part.state_dict().items()
    }
    text = json.dumps(facts)
    metadata = {_STEP: str(step), _FACTS: text, _DIGEST: _digest(step, text, tensors)}
    return safetensors.torch.save(tensors, metadata)


def decode(data: bytes) -> Checkpoint:
    """Read the bytes of a checkpoint. Raise ValueError, KeyError or SafetensorError if they are damaged."""
    tensors = safetensors.torch.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header["__metadata__"]
    step, text, digest = int(metadata[_STEP]), metadata[_FACTS], metadata[_DIGEST]
    if digest != _digest(step, text, tensors):
        raise ValueError("its SHA-256 does not match")
    return Checkpoint(step, tensors, json.loads(text), digest)


def save(folder: Path, step: int, parts: Mapping[str, Part], facts: Mapping[str, Any], kept: int = KEPT) -> None:
    """Write a checkpoint, then delete the oldest others.

    Args:
        folder: The folder of the checkpoints.
        step: Steps of all stages so far.
        parts: The sections of the state, by name.
        facts: What is not a tensor, in JSON's types.
        kept: How many checkpoints stay, the new one included.

    Raises:
        RunError: The file cannot be written; every earlier checkpoint is then still there.
    """
    data = encode(step, parts, facts)
    target = folder / f"step-{step:09d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for draft in folder.glob(".step-*"):  # left by a run that was killed while it wrote
            draft.unlink()
        files.write(target, data)
    except (OSError, RaeServeError) as error:
        raise RunError(f"{error}; the earlier checkpoints are untouched") from None
    others = [path for path in paths(folder) if path != target]
    for old in others[: len(others) + 1 - kept]:
        old.unlink()


def paths(folder: Path) -> list[Path]:
    """Return the files of the checkpoints in a folder, the oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def latest(folder: Path) -> Checkpoint:
    """Read the newest checkpoint. Raises RunError if there is none or it is damaged."""
    found = paths(folder)
    if not found:
        raise RunError(f"{folder} holds no checkpoint")
    return read(found[-1])


def read(path: Path) -> Checkpoint:
    """Read one checkpoint. Raises RunError, which names the file, if it cannot be read or is damaged."""
    try:
        return decode(path.read_bytes())  # safetensors opens no path that is not UTF-8
    except OSError as error:
        raise RunError(f"checkpoint {path} cannot be read ({error}){_remedy(path)}") from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"checkpoint {path} is damaged ({error}){_remedy(path)}") from None


def _digest(step: int, facts: str, tensors: Mapping[str, Tensor]) -> str:
    sha256 = hashlib.sha256(f"{step}\n{facts}\n".encode())
    for name, value in sorted(tensors.items()):
        sha256.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        sha256.update(value.numpy().tobytes())
    return sha256.hexdigest()


def _remedy(path: Path) -> str:
    others = [other for other in paths(path.parent) if other != path]
    return f"; remove {path.name} to go back to {others[-1].name}" if others else ""
