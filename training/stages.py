"""The stages of a run: the joint training, then the fit and further steps of the prior alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from rae_serve.errors import InvalidInput
from training.autoencoder import Autoencoder
from training.data.batches import Batches, Index, Rows
from training.data.dataset import Dataset
from training.distributed import World
from training.inference import Inference
from training.optimizers import Update
from training.priors.base import Report
from training.recipe import Recipe

_CHOOSING: Final = 10  # of so many training images, one is held out to choose by, if no others are held out


class Stage:
    """A part of a run. The trainer calls `begin`, takes the steps, and calls `end`.

    Args:
        recipe: The recipe of the run.
        model: The model, which the stage trains.
        dataset: The images.
        device: Where the model is.
        steps: Steps of the stage. It ends before them if its time is spent.
        share: The stage's share of the recipe's time budget.
        world: The processes that share each batch.

    Attributes:
        name: What metrics and the progress line call the stage.
        seconds: Time budget of the stage; None for none.
    """

    name: str

    def __init__(
        self,
        recipe: Recipe,
        model: Autoencoder,
        dataset: Dataset,
        device: torch.device,
        steps: int,
        share: float,
        world: World,
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.dataset = dataset
        self.device = device
        self.steps = steps
        self.world = world
        self.seconds = 60.0 * recipe.minutes * share if recipe.minutes else None

    @cached_property
    def batches(self) -> Batches:
        """The stage's batches, made when they are first needed."""
        raise NotImplementedError

    @property
    def statistics(self) -> list[Tensor]:
        """The running statistics of batch norms, which the stage's steps record."""
        return []

    def updates(self, progress: float) -> Iterator[Update]:
        """Return the updates of one step, at `progress` from 0 to 1 of the stage."""
        raise NotImplementedError

    def decay(self, progress: float) -> float:
        """Return a factor on every learning rate."""
        return 1.0

    def begin(self, report: Report) -> None:
        """Prepare the model for the stage; call `report` with figures after each part of a long preparation."""

    def end(self) -> None:
        """Complete what the stage has trained."""


class JointStage(Stage):
    """Encoder, decoder and, where the model trains it, the prior are trained together, on images."""

    name = "autoencoder"

    @cached_property
    def batches(self) -> Batches:
        recipe, dataset = self.recipe, self.dataset
        flip = recipe.horizontal_flip
        return Batches(
            dataset.images, dataset.train, recipe.batch_size, recipe.seed, self.device, flip=flip, world=self.world
        )

    @cached_property
    def statistics(self) -> list[Tensor]:
        norms = [part for part in self.model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        return [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]

    def updates(self, progress: float) -> Iterator[Update]:
        return self.model.updates(self.batches, progress)

    def decay(self, progress: float) -> float:
        """Return 1, and over the last `decay` of the stage a factor that falls linearly to 0.

        All learning rates fall together: an encoder that still follows the critic while the reconstruction's rate
        falls ruins the auto-encoder.
        """
        decay = self.recipe.decay
        return min(1.0, (1.0 - progress) / decay) if decay else 1.0

    def end(self) -> None:
        self.model.eval()
        self.model.finish(self.batches.whole())


class PriorStage(Stage):
    """The sampler is fitted to the finished encoder's rows of all training images, and may take further steps.

    What the sampler chooses by, such as a number of components, is the encoder's rows of the held-out images. If the
    recipe holds none out, it is every tenth training image, and the sampler is fitted to the others.
    """

    name = "prior"

    @cached_property
    def rows(self) -> Rows:
        """The encoder's rows to fit to, of the training images; of mirrored ones too, where the recipe mirrors."""
        return self._rows(split(self.dataset)[0])

    @cached_property
    def held_out(self) -> Rows:
        """The encoder's rows to choose by."""
        return self._rows(split(self.dataset)[1])

    def _rows(self, index: Index) -> Rows:
        images, inference = self.dataset.images, Inference(self.model, self.device)
        rows = inference.rows(images, index)
        if self.recipe.horizontal_flip:
            rows = np.concatenate([rows, inference.rows(images[:, :, ::-1], index)])
        return rows

    @cached_property
    def batches(self) -> Batches:
        recipe, index = self.recipe, np.arange(len(self.rows))
        return Batches(self.rows, index, recipe.prior_batch_size, recipe.seed, self.device, world=self.world)

    def updates(self, progress: float) -> Iterator[Update]:
        return self.model.prior_updates(self.batches, progress)

    def begin(self, report: Report) -> None:
        self.model.eval()
        rows, held_out = (torch.from_numpy(rows).to(self.device) for rows in (self.rows, self.held_out))
        self.model.start_prior(rows, held_out, report)

    def end(self) -> None:
        self.model.eval()
        self.model.sampler.finish()


def split(dataset: Dataset) -> tuple[Index, Index]:
    """Return the positions of the images that a prior is fitted to, and of those that it chooses by."""
    if len(dataset.validation):
        return dataset.train, dataset.validation
    chosen_by = np.s_[::_CHOOSING]
    return np.delete(dataset.train, chosen_by), dataset.train[chosen_by]


def stages(
    recipe: Recipe, model: Autoencoder, dataset: Dataset, device: torch.device, world: World, *, finished: bool
) -> list[Stage]:
    """Return the stages of a run.

    The prior has a stage of its own if it takes further steps, is fitted to the finished auto-encoder, or if the
    auto-encoder is finished from the start. Then there is no other stage.

    Raises:
        InvalidInput: There are too few images to fit the prior to, or the processes cannot share a batch evenly.
    """
    images, least = len(split(dataset)[0]), model.sampler.least_latents
    if images < least:
        raise InvalidInput("posthoc", f"needs at least {least:,} images to be fitted to, not {images:,}")
    if recipe.prior_steps:
        rows = images * (2 if recipe.horizontal_flip else 1)
        world.require_divisible("prior_batch_size", min(recipe.prior_batch_size, rows))
    if finished:
        return [PriorStage(recipe, model, dataset, device, recipe.prior_steps, 1.0, world)]
    world.require_divisible("batch_size", min(recipe.batch_size, len(dataset.train)))
    share = recipe.prior_share if recipe.prior_steps else 0.0
    found: list[Stage] = [JointStage(recipe, model, dataset, device, recipe.steps, 1.0 - share, world)]
    if recipe.prior_steps or model.posthoc or not model.sampler.fitted:
        found.append(PriorStage(recipe, model, dataset, device, recipe.prior_steps, share, world))
    return found
