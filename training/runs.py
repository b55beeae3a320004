"""A run's folder: its recipe, its data, and its model as a checkpoint has it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from filelock import FileLock, Timeout

from rae_serve import files
from rae_serve import images as pictures
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput, RunError
from rae_serve.preprocessing import Preprocessing
from training import checkpoint
from training.autoencoder import Autoencoder
from training.checkpoint import Checkpoint
from training.data.dataset import Dataset, load
from training.data.sources import NAMES
from training.recipe import Recipe, flat

RECORD: Final = "run.json"
REFERENCE: Final = "reference.npy"  # some training images, so that an export does not need the data set
LOCK: Final = ".lock"  # locked by the process that trains; the file itself means nothing, and stays
_REFERENCE_IMAGES: Final = 2000


@dataclass(frozen=True)
class Run:
    """The record of a run.

    Attributes:
        path: The run's folder.
        recipe: What is trained, and how.
        source: Where the images are: the name of a data set, or an absolute path.
        data_name: The data set's name.
        data_digest: SHA-256 over the training images.
        images: Number of training images.
        preprocessing: How any picture becomes an image of the model's shape.
    """

    path: Path
    recipe: Recipe
    source: str
    data_name: str
    data_digest: str
    images: int
    preprocessing: Preprocessing

    @classmethod
    def create(cls, path: Path, recipe: Recipe, dataset: Dataset, source: str) -> Run:
        """Make the folder of a new run. Raises RaeServeError where `path` is in use."""
        if source not in NAMES and os.path.lexists(source):
            source = os.path.abspath(source)  # so that --resume and evaluate find it from any folder
        run = cls(path, recipe, source, dataset.name, dataset.digest(), len(dataset.train), dataset.preprocessing)
        step = -(-len(dataset.train) // _REFERENCE_IMAGES)
        with files.new_folder(path, mark=RECORD) as folder:
            files.write(folder / REFERENCE, pictures.encode_npy(dataset.images[dataset.train[::step]]))
            files.write(folder / RECORD, json.dumps(run._document(), indent=1).encode())
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read the record of a run. Raises RunError where there is none."""
        try:
            document = json.loads((path / RECORD).read_bytes())
            return cls(
                path=path,
                recipe=Recipe(**document["recipe"]),
                source=document["source"],
                data_name=document["data"]["name"],
                data_digest=document["data"]["digest"],
                images=document["data"]["images"],
                preprocessing=Preprocessing(**document["data"]["preprocessing"]),
            )
        except FileNotFoundError:
            raise RunError(f"{path} is no run: it has no {RECORD}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path / RECORD} cannot be read ({error})") from None

    def require_same(self, recipe: Recipe, dataset: Dataset) -> None:
        """Raise InvalidInput, which names the key, where a resumed run is given another recipe or other images."""
        was, now = flat(self.recipe), flat(recipe)
        for key in was | now:
            if was.get(key) != now.get(key):
                raise InvalidInput(
                    key,
                    f"{self.path} was started with {was.get(key)!r}, and cannot go on with {now.get(key)!r}",
                )
        if dataset.digest() != self.data_digest or dataset.preprocessing != self.preprocessing:
            raise InvalidInput("data", f"{self.path} was started on other images than those of {dataset.name}")

    def data(self) -> str:
        """Return where the images of the run are. Raise InvalidInput, naming `data`, if they are not there."""
        if self.source not in NAMES and not os.path.exists(self.source):
            raise InvalidInput(
                "data", f"{self.path} was trained on {self.source!r}, which is not there; give its place by --data"
            )
        return self.source

    def reference(self) -> Pixels:
        """Return some of the training images, uint8 [N, H, W, C]."""
        try:
            return np.load(self.path / REFERENCE, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / REFERENCE} cannot be read ({error})") from None

    def load(self, *, best: bool = False) -> tuple[Autoencoder, Checkpoint]:
        """Return the model in evaluation mode, on the CPU, and the checkpoint that it is from.

        Args:
            best: Whether to take the checkpoint with the least error on held-out images in place of the latest.
        """
        state = checkpoint.latest(self.path / (checkpoint.BEST if best else checkpoint.CHECKPOINTS))
        return self.model_at(state), state

    def model_at(self, state: Checkpoint) -> Autoencoder:
        """Return the model of one of the run's checkpoints, in evaluation mode, on the CPU."""
        height, width, channels = self.preprocessing.shape
        with torch.random.fork_rng():
            model = self.recipe.build((channels, height, width))
        model.load_state_dict(state.section("model"))
        return model.eval()

    def training_facts(self, state: Checkpoint) -> dict[str, Any]:
        """Return where the weights of a checkpoint come from, as the manifest says it."""
        return {
            "data": self.data_name,
            "data_digest": self.data_digest,
            "images": self.images,
            "steps": state.step,
            "seed": self.recipe.seed,
            "checkpoint_digest": state.digest,
        }

    def _document(self) -> dict[str, Any]:
        return {
            "created_by": f"rae-serve {version('rae-serve')}, torch {version('torch')}",
            "recipe": self.recipe.model_dump(),
            "source": self.source,
            "data": {
                "name": self.data_name,
                "digest": self.data_digest,
                "images": self.images,
                "preprocessing": self.preprocessing.model_dump(),
            },
        }


def check_new(path: Path) -> None:
    """Check, before the images are read, that a run can begin in a folder.

    Raises:
        RaeServeError: `path` is in use or cannot be written.
    """
    if (path / RECORD).exists():
        raise RunError(f"{path} is in use by a run; go on with it by --resume, or choose another --out")
    files.check_new_folder(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other trainings out of a run's folder during this block; the operating system frees it if a process dies.

    Raises:
        RunError: Another process trains the run.
    """
    lock = FileLock(path / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{path} is in use by another training; wait until it ends, or choose another --out") from None
    try:
        yield
    finally:
        lock.release()


def load_data(recipe: Recipe, source: str) -> Dataset:
    """Read the images of `source` and prepare them as the recipe says."""
    return load(source, recipe.data, shape=recipe.preprocessing, validation=recipe.validation)
