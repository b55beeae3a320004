"""A run's folder: what was trained, from what, and the model as its last checkpoint has it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from rae_serve import files
from rae_serve import images as pictures
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput, RunError
from rae_serve.preprocessing import Preprocessing
from training import checkpoint
from training.autoencoder import Autoencoder
from training.checkpoint import Checkpoint
from training.data import dataset as data
from training.data.dataset import Dataset
from training.recipe import Recipe

RECORD: Final = "run.json"
REFERENCE: Final = "reference.npy"  # some training images, so that an export needs no data set
_REFERENCE_IMAGES: Final = 2000


@dataclass(frozen=True)
class Run:
    """A run's record: its recipe, and the data that it was started on."""

    path: Path
    recipe: Recipe
    source: str
    data_name: str
    data_digest: str
    images: int
    preprocessing: Preprocessing

    @classmethod
    def create(cls, path: Path, recipe: Recipe, dataset: Dataset, source: str) -> Run:
        """Start a folder for a run. Raises RunError where `path` is in use."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path} is in use; choose another --out, or go on with it by --resume")
        run = cls(path, recipe, source, dataset.name, dataset.digest(), len(dataset.train), dataset.preprocessing)
        step = -(-len(dataset.train) // _REFERENCE_IMAGES)
        with files.new_folder(path) as folder:
            files.write(folder / REFERENCE, pictures.encode_npy(dataset.images[dataset.train[::step]]))
            files.write(folder / RECORD, json.dumps(run._document(), indent=1).encode())
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read a run's record. Raises RunError where there is none."""
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
        """Raise InvalidInput, naming the key, where a resumed run is given another recipe or other data."""
        was, now = flat(self.recipe), flat(recipe)
        for key in was | now:
            if was.get(key) != now.get(key):
                raise InvalidInput(
                    key,
                    f"{self.path} was started with {was.get(key)!r}, and cannot go on with {now.get(key)!r}",
                )
        if dataset.digest() != self.data_digest or dataset.preprocessing != self.preprocessing:
            raise InvalidInput("data", f"{self.path} was started on other images than those of {dataset.name}")

    def reference(self) -> Pixels:
        """Some of the training images, uint8 [N, H, W, C]."""
        try:
            return np.load(self.path / REFERENCE, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / REFERENCE} cannot be read ({error})") from None

    def load(self, *, best: bool = False) -> tuple[Autoencoder, Checkpoint]:
        """The model in evaluation mode, on the CPU, of the latest checkpoint or of that with least held-out error."""
        state = checkpoint.latest(self.path / ("best" if best else "checkpoints"))
        height, width, channels = self.preprocessing.shape
        with torch.random.fork_rng():
            model = self.recipe.build((channels, height, width))
        model.load_state_dict(state.section("model"))
        return model.eval(), state

    def training_facts(self, state: Checkpoint) -> dict[str, Any]:
        """Where the weights of a checkpoint come from, as the manifest says it."""
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


def flat(recipe: Recipe) -> dict[str, Any]:
    """A recipe's keys and its model's parameters in one mapping, as in its file."""
    return recipe.model_dump(exclude={"parameters"}) | recipe.parameters


def load_data(recipe: Recipe, source: str) -> Dataset:
    """The data set of a recipe, from `source`, as the recipe says to prepare it."""
    return data.load(source, recipe.data, shape=recipe.preprocessing, validation=recipe.validation)
