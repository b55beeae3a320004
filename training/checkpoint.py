"""Checkpoints of a run: safetensors for what is large, JSON for the rest, whole or not there at all.

A checkpoint is `step-N.safetensors` and, written after it, `step-N.json` with its SHA-256: without the second
the first does not count. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor

from rae_serve import files
from rae_serve.errors import RaeServeError, RunError

KEPT: Final = 2  # the last, and the one before it should the last be damaged


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` steps. Tensors are named by section: model/…, optimizer/…, random/…"""

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    digest: str

    def section(self, name: str) -> dict[str, Tensor]:
        """The tensors of one section, by their names within it."""
        prefix = f"{name}/"
        return {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], kept: int = KEPT) -> None:
    """Write a checkpoint, then delete all but it and the newest others, `kept` in all.

    Raises RunError where the disk refuses; every earlier checkpoint is then still there.
    """
    data = safetensors.torch.save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    document: dict[str, Any] = {"step": step, **facts, "sha256": hashlib.sha256(data).hexdigest()}
    document["checksum"] = _checksum(document)
    target = folder / f"step-{step:09d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(target, data)
        files.write(target.with_suffix(".json"), json.dumps(document, indent=1).encode())
    except (OSError, RaeServeError) as error:
        raise RunError(f"{error}; the earlier checkpoints are untouched") from None
    others = [step for step in _steps(folder) if step != target.with_suffix(".json")]
    for old in others[: len(others) + 1 - kept]:
        old.unlink()  # first: without it the rest is no checkpoint
    for orphan in folder.glob("step-*.safetensors"):  # the above, and what a killed run left
        if not orphan.with_suffix(".json").exists():
            orphan.unlink()


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint, whole or not."""
    return bool(_steps(folder))


def latest(folder: Path) -> Checkpoint:
    """The newest checkpoint. Raises RunError where there is none or it is damaged."""
    steps = _steps(folder)
    if not steps:
        raise RunError(f"{folder} holds no checkpoint")
    return read(steps[-1])


def read(path: Path) -> Checkpoint:
    """The checkpoint of a step-N.json. Raises RunError, naming the file, where it is not what was written."""
    try:
        document = json.loads(path.read_bytes())
        data = path.with_suffix(".safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise RunError(f"checkpoint {path} cannot be read ({error}){_remedy(path)}") from None
    intact = isinstance(document, dict) and document.pop("checksum", None) == _checksum(document)
    if not intact or hashlib.sha256(data).hexdigest() != document["sha256"]:
        raise RunError(f"checkpoint {path} is damaged: its SHA-256 does not match{_remedy(path)}")
    digest, step = document.pop("sha256"), document.pop("step")
    return Checkpoint(step, safetensors.torch.load(data), document, digest)


def flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's moments and counters, as parameter/entry → tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{index}/{entry}": value for index, entries in state.items() for entry, value in entries.items()}


def unflatten(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put what `flatten` gave back into an optimiser of the same parameters; moments lie in memory as those do."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, entry = key.split("/")
        like = parameters[int(index)]
        moment = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[entry] = moment
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.json"))


def _remedy(path: Path) -> str:
    others = [other for other in _steps(path.parent) if other != path]
    if not others:
        return ""
    return f"; remove {path.name} to go back to {others[-1].name}"


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
