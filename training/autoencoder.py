"""The base class of all models: an encoder, a decoder, a prior, and the updates that train them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

from training.losses import sum_squared_error
from training.optimizers import Update
from training.priors.base import Prior, Report, ignore

# Layers that record statistics in training mode, and the attribute that tells them to.
_RECORDING: Final = {nn.modules.batchnorm._BatchNorm: "track_running_stats", _SpectralNorm: "training"}


@dataclass(frozen=True)
class Exportable:
    """A trained model in the form that is exported.

    Attributes:
        model: The model, which may have fewer latent dimensions than it was trained with.
        active: The trained dimensions that the model keeps, in their order.
        mask: α of every trained dimension, from 0 to 1; None for a system without a mask.
        system: The name of the model's file in `training/models`, and the keyword arguments of its constructor, if
            they are not those of the trained model.
    """

    model: Autoencoder
    active: list[int]
    mask: list[float] | None = None
    system: tuple[str, dict[str, Any]] | None = None


class Autoencoder(nn.Module):
    """Base class of the models. Images are float [B, C, H, W] in [0, 1], latents float [B, m].

    A subclass's constructor takes the image shape and, by keyword, everything that a recipe may set: its signature is
    the schema of the recipe, and the `Args:` section of the class's docstring explains the keys.

    Three methods encode images. `encode` returns the one latent that stands for an image. `rows` returns the raw
    output of the encoder, such as means and log-variances; when the auto-encoder is finished, it is computed once for
    all training images. `latents` turns rows into the latents that a prior must match, and may draw them at random.
    In a deterministic model, all three return the encoder's output.

    Attributes:
        prior: The model's own prior; None if the system has none.
        posthoc: A prior that is fitted to the finished auto-encoder, in place of its own; None for none.
        perceptual: Returns a perceptual distance, with its weight, of reconstructions and images; None for none.
        compiles: Whether torch.compile may compile encoder and decoder: not if a loss has derivatives of their
            derivatives, for which it raises errors in some orders of the work and not in others.
    """

    # The training has diverged if a term of a loss is not below this.
    largest_term: float = 1e8

    encoder: nn.Module
    decoder: nn.Module
    prior: Prior | None

    def __init__(self) -> None:
        super().__init__()
        # Not class attributes: those would hide a registered module.
        self.prior = None
        self.posthoc: Prior | None = None
        self.perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
        self.compiles = True

    @property
    def sampler(self) -> Prior:
        """The prior that samples come from."""
        prior = self.posthoc or self.prior
        assert prior is not None  # Recipe.build sees to it
        return prior

    @property
    def image_networks(self) -> list[nn.Module]:
        """The networks that compute on images, for which a training may use bfloat16."""
        return [self.encoder, self.decoder]

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return a fresh optimiser for each name that `updates` yields."""
        raise NotImplementedError

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        """Yield the updates of one training step.

        Each yield is one step of one optimiser, and the code after it sees the new weights. Never yield inside
        `torch.no_grad()`: it would reach the caller. Draw random numbers by `torch.rand`, `torch.randn`,
        `torch.rand_like` and `torch.randn_like`, one row per image or a single number: where several processes share
        a batch, each then gets the rows of its own images.

        Args:
            batches: Endless batches of images [B, C, H, W].
            progress: How much of the run is done, from 0 to 1, for models that have a schedule.
        """
        raise NotImplementedError

    def squared_error_terms(self, reconstruction: Tensor, x: Tensor, weight: float = 1.0) -> dict[str, Tensor]:
        """Return the squared error, summed over pixels and averaged over the batch, and the perceptual term.

        Args:
            reconstruction: The reconstructions, [B, C, H, W].
            x: The images, [B, C, H, W].
            weight: A factor on both.
        """
        squared_error = weight * sum_squared_error(reconstruction, x)
        return {"reconstruction": squared_error, **self.perceptual_term(reconstruction, x, weight)}

    def perceptual_term(self, reconstruction: Tensor, x: Tensor, weight: float | Tensor) -> dict[str, Tensor]:
        """Return the perceptual term of a reconstruction loss; it is empty unless the recipe has one.

        Args:
            reconstruction: The reconstructions, [B, C, H, W].
            x: The images, [B, C, H, W].
            weight: The model's weight of the squared error summed over pixels, so that a recipe's `perceptual` means
                the same for all models.
        """
        return {"perceptual": weight * self.perceptual(reconstruction, x)} if self.perceptual else {}

    def finish(self, batches: Iterator[Tensor]) -> None:
        """Complete the training of the auto-encoder, once, in evaluation mode."""

    def start_prior(self, rows: Tensor, held_out: Tensor, report: Report = ignore) -> None:
        """Prepare the sampler for the finished auto-encoder.

        Args:
            rows: Rows of the training images, [N, D].
            held_out: Rows of other images, [M, D].
            report: Called with figures after each part of a long fit.
        """
        self.sampler.start(self.latents(rows), self.latents(held_out), report)

    def prior_updates(self, rows: Iterator[Tensor], progress: float) -> Iterator[Update]:
        """Yield the updates of one further step of the sampler alone, on batches of rows of the finished encoder."""
        return self.sampler.updates(map(self.latents, rows), progress)

    def rate(self, optimizer: str, progress: float) -> float:
        """Return a factor on an optimiser's learning rate, for models that have their own schedule."""
        return 1.0

    def diagnostics(self) -> dict[str, Any]:
        """Return values to log beside the losses, such as the number of active dimensions."""
        return {}

    def for_export(self, mean: Tensor, *, prune: bool = True) -> Exportable:
        """Return the model in the form that is exported.

        Args:
            mean: Mean latent [m] of the training images.
            prune: Whether to leave out the dimensions that a mask has closed.
        """
        return Exportable(self, list(range(self.sampler.latent_dim)))

    def rows(self, x: Tensor) -> Tensor:
        """Return the encoder's raw output, one row per image. In training mode, batch norm records statistics."""
        return self.encode(x)

    def latents(self, rows: Tensor) -> Tensor:
        """Return the latents [B, m] of rows that a prior must match; each call may draw them anew."""
        return rows

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents [B, m] that stand for images."""
        return self.encoder(x)

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents."""
        return self.decoder(latents)

    def codes(self, x: Tensor, *, gradient: bool = False) -> Tensor:
        """Return latents of images as `latents(rows(x))` does, but record no batch-norm statistics.

        Only the auto-encoder's own update records them. In training, batch norm normalises by the batch here too, so
        that a critic scores the same latents from which the decoder learns.

        Args:
            x: Images [B, C, H, W].
            gradient: Whether the result has a gradient.
        """
        with torch.set_grad_enabled(gradient), _unrecorded_statistics(self.encoder):
            return self.latents(self.rows(x))

    def images(self, latents: Tensor, *, gradient: bool = False) -> Tensor:
        """Return the images of latents as `decode` does, but record no batch-norm statistics.

        Args:
            latents: Latents [B, m].
            gradient: Whether the result has a gradient.
        """
        with torch.set_grad_enabled(gradient), _unrecorded_statistics(self.decoder):
            return self.decode(latents)


@contextmanager
def _unrecorded_statistics(module: nn.Module) -> Iterator[None]:
    """Make layers in training mode record no statistics, in this block.

    Batch norms still normalise by the batch, and spectral norms by the singular values that they have found so far.
    """
    switches = [
        (part, switch)
        for kind, switch in _RECORDING.items()
        for part in module.modules()
        if isinstance(part, kind) and part.training
    ]
    for part, switch in switches:
        setattr(part, switch, False)
    try:
        yield
    finally:
        for part, switch in switches:
            setattr(part, switch, True)
