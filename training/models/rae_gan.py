"""RAE + GAN: a RAE whose reconstructions must also look like images to a discriminator of patches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import relu

from training.models.rae import RAE
from training.networks import ImageShape, patch_discriminator
from training.optimizers import Update, adam

_LEAST_LENGTH: Final = 1e-6  # of a gradient by which another is divided


class RAEGAN(RAE):
    """A RAE with the adversarial loss of VQGAN: details are sharp where a squared error leaves blur.

    https://arxiv.org/abs/2012.09841, equations 3, 5, 6 and 7. The auto-encoder minimises RAE's terms − λ D(x̂), where
    D scores each patch of a reconstruction, and λ makes the gradient of this term at the reconstruction `adversarial`
    times as long as that of the squared error and the perceptual distance. The discriminator minimises the hinge
    loss, max(0, 1 − D(x)) + max(0, 1 + D(x̂)).

    Ours: the gradients are compared at the reconstruction, not at the decoder's last weights, which spares a pass
    through the decoder; and the discriminator has spectral norm (https://arxiv.org/abs/1802.05957) and no batch norm.

    Args:
        adversarial: The length of the adversarial gradient, as a multiple of that of the errors. Higher values
            make details sharper and less exact; 0 leaves the discriminator out.
        adversarial_start: The share of the training before the adversarial loss begins.
        discriminator_filters: Channels of the discriminator's first convolution.
        discriminator_lr: Learning rate of the discriminator's Adam.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        adversarial: NonNegativeFloat = 0.1,
        adversarial_start: Annotated[float, Field(ge=0, lt=1)] = 0.3,
        discriminator_filters: PositiveInt = 16,
        discriminator_lr: PositiveFloat = 4e-4,
        **rae: Any,
    ) -> None:
        super().__init__(image_shape, **rae)
        self.discriminator = patch_discriminator(image_shape, discriminator_filters)
        self.adversarial = adversarial
        self.adversarial_start = adversarial_start
        self.discriminator_lr = discriminator_lr

    @property
    def image_networks(self) -> list[nn.Module]:
        return [*super().image_networks, self.discriminator]

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        discriminator = adam(self.discriminator.parameters(), self.discriminator_lr, betas=(0.5, 0.9))
        return {**super().optimizers(), "discriminator": discriminator}

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        x = next(batches)
        reconstruction, terms = self.terms(x)
        if not self.adversarial or progress < self.adversarial_start:
            yield "autoencoder", terms
            return
        adversarial = -self.discriminator(reconstruction).mean()
        errors = {name: term for name, term in terms.items() if name in ("reconstruction", "perceptual")}
        gradients = {name: _gradient(error, reconstruction) for name, error in errors.items()}
        of_adversarial = _gradient(adversarial, reconstruction)
        of_errors = torch.stack(list(gradients.values())).sum(dim=0)
        weight = self.adversarial * _length(of_errors) / _length(of_adversarial)
        # The gradients at the reconstruction are known now: the auto-encoder's update need not compute them again.
        known = {name: _with_gradient(error, reconstruction, gradients[name]) for name, error in errors.items()}
        known["adversarial"] = _with_gradient(weight * adversarial, reconstruction, weight * of_adversarial)
        yield "autoencoder", {**terms, **known}
        real, fake = self.discriminator(x), self.discriminator(reconstruction.detach())
        yield "discriminator", {"hinge": relu(1.0 - real).mean() + relu(1.0 + fake).mean()}


def _gradient(loss: Tensor, reconstruction: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, reconstruction, retain_graph=True)
    return gradient


def _length(gradient: Tensor) -> Tensor:
    return gradient.norm().clamp(min=_LEAST_LENGTH)


def _with_gradient(value: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """Return a value whose gradient at x is the given one."""
    product = (x * gradient).sum()
    return value.detach() + (product - product.detach())
