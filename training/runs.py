"""A run's folder: its record in `run.json`, some of its training images, and the model of each checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rae_serve import files
from rae_serve import images as pictures
from rae_serve.arrays import Pixels
from rae_serve.data_sets import NAMES
from rae_serve.errors import InvalidInput, RunError
from rae_serve.preprocessing import Preprocessing
from training import checkpoint
from training.autoencoder import Autoencoder
from training.checkpoint import Checkpoint
from training.data.dataset import Dataset, load
from training.inference import Inference
from training.recipe import Recipe, flat

RECORD: Final = "run.json"
REFERENCE: Final = "reference.npy"  # some training images, so that an export does not need the data set
SKIPPED: Final = "skipped.txt"  # the files that are no readable images, if there are any
LOCK: Final = ".lock"  # locked by the process that trains; the file itself means nothing, and stays
_REFERENCE_IMAGES: Final = 2000


class TrainingData(BaseModel):
    """The record of the images of a run.

    Attributes:
        name: The data set's name.
        digest: SHA-256 over the training images.
        images: Number of training images.
        preprocessing: How any picture becomes an image of the model's shape.
    """

    name: str
    digest: str
    images: int
    preprocessing: Preprocessing


class Origin(BaseModel):
    """The record of the finished auto-encoder that a run took over, to fit another prior on it.

    Attributes:
        run: Name of the run that trained it.
        steps: Steps of the checkpoint that was taken.
        checkpoint_digest: SHA-256 of that checkpoint.
        trained_dim: Latent dimensions of its training.
        active: The dimensions that were kept.
        mask: α of every trained dimension; None for a system without a mask.
    """

    run: str
    steps: int
    checkpoint_digest: str
    trained_dim: int
    active: list[int]
    mask: list[float] | None = None


class Start(BaseModel):
    """The record of the weights that a run started from.

    Attributes:
        name: Name of the run or of the bundle that had them.
        digest: SHA-256 of the checkpoint, or digest of the bundle.
    """

    name: str
    digest: str


class Run(BaseModel):
    """The record of a run.

    Attributes:
        path: The run's folder.
        recipe: What is trained, and how.
        source: Where the images are: the name of a data set, or an absolute path.
        data: The images.
        origin: The finished auto-encoder that the run took over; None if the run trains its own.
        start: The weights that the training started from; None if they were drawn at random.
    """

    model_config = ConfigDict(frozen=True)

    path: Path = Field(exclude=True)
    recipe: Recipe
    source: str
    data: TrainingData
    origin: Origin | None = None
    start: Start | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        recipe: Recipe,
        dataset: Dataset,
        source: str,
        *,
        origin: Origin | None = None,
        start: Start | None = None,
    ) -> Run:
        """Make the folder of a new run. Raises RaeServeError where `path` is in use."""
        if source not in NAMES and os.path.lexists(source):
            source = os.path.abspath(source)  # so that --resume and evaluate find it from any folder
        data = TrainingData(
            name=dataset.name,
            digest=dataset.digest(),
            images=len(dataset.train),
            preprocessing=dataset.preprocessing,
        )
        run = cls(path=path, recipe=recipe, source=source, data=data, origin=origin, start=start)
        made_by = {"created_by": f"rae-serve {version('rae-serve')}, torch {version('torch')}"}
        step = -(-len(dataset.train) // _REFERENCE_IMAGES)
        with files.new_folder(path, mark=RECORD) as folder:
            files.write(folder / REFERENCE, pictures.encode_npy(dataset.images[dataset.train[::step]]))
            if dataset.skipped:
                files.write(folder / SKIPPED, "".join(f"{line}\n" for line in dataset.skipped).encode())
            files.write(folder / RECORD, json.dumps(made_by | run.model_dump(mode="json"), indent=1).encode())
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read the record of a run. Raises RunError if there is none or it cannot be read."""
        try:
            return cls(path=path, **json.loads((path / RECORD).read_bytes()))
        except FileNotFoundError:
            raise RunError(f"{path} is no run: it has no {RECORD}") from None
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path / RECORD} cannot be read ({error})") from None

    def require_same(self, recipe: Recipe, dataset: Dataset) -> None:
        """Raise InvalidInput, which names the key, if the recipe or the images are not those of this run."""
        was, now = flat(self.recipe), flat(recipe)
        for key in was | now:
            if was.get(key) != now.get(key):
                problem = f"{self.path} was started with {was.get(key)!r}, and cannot go on with {now.get(key)!r}"
                raise InvalidInput(key, problem)
        if (dataset.digest(), dataset.preprocessing) != (self.data.digest, self.data.preprocessing):
            raise InvalidInput("data", f"{self.path} was started on other images than those of {dataset.name}")

    def image_source(self) -> str:
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

    def mean_latent(self, model: Autoencoder) -> Tensor:
        """Return the mean latent [m] of the run's reference images, which `Autoencoder.for_export` takes."""
        return torch.from_numpy(Inference(model, torch.device("cpu")).encode(self.reference()).mean(axis=0))

    def has_checkpoint(self) -> bool:
        """Return whether the run has a checkpoint to go on from."""
        return bool(checkpoint.paths(self.path / checkpoint.CHECKPOINTS))

    def load(self, *, best: bool = False) -> tuple[Autoencoder, Checkpoint]:
        """Return the model, in evaluation mode and on the CPU, and its checkpoint.

        Args:
            best: Whether to take the checkpoint with the least error on held-out images in place of the latest.
        """
        state = checkpoint.latest(self.path / (checkpoint.BEST if best else checkpoint.CHECKPOINTS))
        return self.model_at(state), state

    def model_at(self, state: Checkpoint) -> Autoencoder:
        """Return the model of one of the run's checkpoints, in evaluation mode, on the CPU."""
        height, width, channels = self.data.preprocessing.shape
        with torch.random.fork_rng():
            model = self.recipe.build((channels, height, width))
        model.load_state_dict(state.section("model"))
        return model.eval()

    def training_facts(self, state: Checkpoint) -> dict[str, Any]:
        """Return where the weights of a checkpoint come from: the section `training` of the manifest."""
        return {
            "data": self.data.name,
            "data_digest": self.data.digest,
            "images": self.data.images,
            "steps": state.step,
            "seed": self.recipe.seed,
            "checkpoint_digest": state.digest,
            **({"started_from": self.start.digest} if self.start else {}),
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
