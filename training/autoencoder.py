"""The base of all models: an encoder, a decoder and a prior, and the order in which losses are minimised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.optimizers import Update
from training.priors.base import Prior


@dataclass(frozen=True)
class Exportable:
    """A trained model in the form that is exported.

    Attributes:
        model: The model, which may have fewer latent dimensions than it was trained with.
        active: The trained dimensions that are left, in their order.
        mask: α of every trained dimension, from 0 to 1; None for a model without a mask.
    """

    model: Autoencoder
    active: list[int]
    mask: list[float] | None = None


class Autoencoder(nn.Module):
    """Base of the models. Images are [B, C, H, W] in [0, 1], latents [B, m].

    A subclass's constructor takes the image shape and, by keyword, everything that a recipe may set: its signature is
    the schema of the recipe, and the `Args:` section of its docstring explains the keys.

    Encoding has two steps, so that one contract serves deterministic and random encoders. `rows` is what the finished
    encoder says about images, and is computed once for all training images; `latents` are latents that a prior must
    match, and may be random. For a deterministic encoder both are the encoder's output. `encode` is the one latent
    that stands for an image.
    """

    # A term of a loss beyond this means that the training diverges.
    largest_term: float = 1e8

    encoder: nn.Module
    decoder: nn.Module
    prior: Prior

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return a fresh optimiser for each name that `updates` yields."""
        raise NotImplementedError

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        """Yield the updates of one training step.

        Each yield is one step of one optimiser, and the code after it sees the new weights. Never yield inside
        `torch.no_grad()`: it would reach the caller.

        Args:
            batches: Endless batches of images [B, C, H, W].
            progress: How much of the run is done, from 0 to 1, for models that have a schedule.
        """
        raise NotImplementedError

    def finish(self, batches: Iterator[Tensor]) -> None:
        """Complete the training of the auto-encoder, once, in evaluation mode."""

    def start_prior(self, rows: Tensor) -> None:
        """Prepare the prior for the finished auto-encoder, given the rows of all training images."""
        self.prior.start(self.latents(rows))

    def prior_updates(self, rows: Iterator[Tensor], progress: float) -> Iterator[Update]:
        """Yield the updates of one further step of the prior alone, on batches of rows of the finished encoder."""
        return self.prior.updates(map(self.latents, rows), progress)

    def rate(self, optimizer: str, progress: float) -> float:
        """Return a factor on an optimiser's learning rate, for models that have a schedule of their own."""
        return 1.0

    def diagnostics(self) -> dict[str, Any]:
        """Return what a model logs about itself beside its losses."""
        return {}

    def for_export(self, mean: Tensor, *, prune: bool = True) -> Exportable:
        """Return the model in the form that is exported.

        Args:
            mean: Mean latent [m] of the training images.
            prune: Whether to leave out dimensions that the model does not use, where it can tell.
        """
        return Exportable(self, list(range(self.prior.latent_dim)))

    def rows(self, x: Tensor) -> Tensor:
        """Return what the encoder says about images, one row each; batch norm gathers its statistics here."""
        return self.encode(x)

    def latents(self, rows: Tensor) -> Tensor:
        """Return latents [B, m], a fresh sample where they are random, from the encoder's rows."""
        return rows

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents [B, m] that stand for images."""
        return self.encoder(x)

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents."""
        return self.decoder(latents)

    def codes(self, x: Tensor, *, gradient: bool = False) -> Tensor:
        """Return latents of images without changing batch-norm statistics, which are the auto-encoder update's.

        In training, the batch's own statistics normalise as they do in the auto-encoder's update, so that a critic
        judges the latents from which the decoder learns.
        """
        with torch.set_grad_enabled(gradient), _unrecorded_statistics(self.encoder):
            return self.latents(self.rows(x))

    def images(self, latents: Tensor, *, gradient: bool = False) -> Tensor:
        """Return the images of latents without changing batch-norm statistics, as `codes`."""
        with torch.set_grad_enabled(gradient), _unrecorded_statistics(self.decoder):
            return self.decode(latents)


@contextmanager
def _unrecorded_statistics(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.track_running_stats = False  # in training mode: normalise by the batch, record nothing
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
