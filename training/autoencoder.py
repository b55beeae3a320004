"""What every system is: an encoder, a decoder and a prior, and the order in which losses are minimised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.priors.base import Prior

# The optimiser that steps, and the terms whose sum it minimises.
Update = tuple[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Pruning:
    """A model reduced to its active latent dimensions: which they are, and α of all, where it has a mask."""

    model: Autoencoder
    active: list[int]
    mask: list[float] | None


class Autoencoder(nn.Module):
    """Base of the models. Images are [B, C, H, W] in [0, 1], latents [B, m].

    A subclass's constructor takes the image shape and, by keyword, everything that a recipe may set: its
    signature is the schema of the recipe.
    """

    encoder: nn.Module
    decoder: nn.Module
    prior: Prior

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """A fresh optimiser for each name that `updates` yields."""
        raise NotImplementedError

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        """One training step: each yield is one optimiser's step, and what follows it sees the new weights.

        `progress` is how much of the run is done, from 0 to 1, for models that have a schedule.

        Never yield inside `torch.no_grad()`: it would reach the caller.
        """
        raise NotImplementedError

    def finish(self, batches: Iterator[Tensor]) -> None:
        """What ends the training of the autoencoder, once, in evaluation mode: for most models nothing."""

    def start_prior(self, codes: Tensor) -> None:
        """What comes before the further steps of the prior, once, given all codes [N, m]: for most models nothing."""

    def prior_updates(self, codes: Iterator[Tensor], progress: float) -> Iterator[Update]:
        """One further step of the prior alone, on codes [B, m] of the finished encoder, for models that have it."""
        raise NotImplementedError

    def rate(self, optimizer: str, progress: float) -> float:
        """A factor on an optimiser's learning rate, for models whose schedule has one of its own."""
        return 1.0

    def diagnostics(self) -> dict[str, Any]:
        """What a model has to tell of itself at every log, beside its losses."""
        return {}

    def whole(self) -> Pruning:
        """This model with every latent dimension."""
        return Pruning(self, list(range(self.prior.latent_dim)), None)

    def prune(self, mean: Tensor) -> Pruning:
        """What to export, given the mean [m] of the codes: for most models themselves, whole."""
        return self.whole()

    def encode(self, x: Tensor) -> Tensor:
        """The autoencoder's own pass, from which batch norm gathers its statistics."""
        return self.encoder(x)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents."""
        return self.decoder(latents)

    def codes(self, x: Tensor, *, gradient: bool = False) -> Tensor:
        """Latents of images, leaving batch-norm statistics alone: they are the autoencoder pass's business.

        In training the batch's own statistics normalise, as in the autoencoder's pass, so that the critic
        judges the codes that the decoder learns from.
        """
        with torch.set_grad_enabled(gradient), _unrecorded_statistics(self.encoder):
            return self.encoder(x)

    def images(self, latents: Tensor, *, gradient: bool = False) -> Tensor:
        """Images of latents, leaving batch-norm statistics alone, as `codes`."""
        with torch.set_grad_enabled(gradient), _unrecorded_statistics(self.decoder):
            return self.decoder(latents)


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
