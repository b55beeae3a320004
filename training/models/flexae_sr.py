"""FlexAE-SR: FlexAE with a smoothness regulariser (UAI 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from training.losses import critic_terms
from training.models.flexae import FlexAE
from training.networks import ImageShape, conv_critic
from training.optimizers import Update, adam

_BETAS: Final = (0.5, 0.9)  # Adam's β₁ and β₂ for the image critic and for the smoothing update


class FlexAESR(FlexAE):
    """FlexAE, and an image critic K, which learns to tell images from decoded interpolations. E and D mislead K.

    https://arxiv.org/abs/2006.05838. An interpolation is x̃ = D(a·E(x) + (1 − a)·E(x')), with a ~ U(0, 1) for each
    sample. Where the sources are silent: the second images x' are the same batch in reverse order, K is as wide as
    the encoder, its initial weights are Glorot-normal, and it uses the batch of the critic update before it.

    Args:
        image_critic_lr: Learning rate of the image critic.
        image_penalty: Weight of the image critic's gradient penalty.
        smoothing_lr: Learning rate by which encoder and decoder follow the image critic.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        image_critic_lr: PositiveFloat = 2e-4,
        image_penalty: NonNegativeFloat = 10.0,
        smoothing_lr: PositiveFloat = 2e-4,
        **flexae: Any,
    ) -> None:
        super().__init__(image_shape, **flexae)
        self.image_critic = conv_critic(image_shape, self.filters, self.hidden)
        self.image_penalty = image_penalty
        self.learning_rates |= {"image_critic": image_critic_lr, "smoothing": smoothing_lr}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rates = self.learning_rates
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        return super().optimizers() | {
            "image_critic": adam(self.image_critic.parameters(), rates["image_critic"], _BETAS),
            "smoothing": adam(autoencoder, rates["smoothing"], _BETAS),
        }

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        yield self._reconstruct(next(batches))
        for _ in range(self.critic_steps):
            x = next(batches)
            noise = self.generator.noise(len(x))
            yield "critic", self.generator.critic_terms(self.codes(x), noise, self.penalty)
            yield "image_critic", critic_terms(self.image_critic, x, self.interpolate(x), self.image_penalty)
        yield "smoothing", {"adversarial": -self.image_critic(self.interpolate(x, gradient=True)).mean()}
        yield from self._match(x, noise)

    def interpolate(self, x: Tensor, *, gradient: bool = False) -> Tensor:
        """Return decoded interpolations [B, C, H, W], each between an image and another image of the batch."""
        latents = self.codes(x, gradient=gradient)
        mix = torch.rand(len(x), 1, device=x.device)
        return self.images(mix * latents + (1.0 - mix) * latents.flip(0), gradient=gradient)
