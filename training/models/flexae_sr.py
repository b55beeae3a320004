"""FlexAE-SR: FlexAE whose decoded latent interpolations an image critic finds real (UAI 2021, arXiv 2006.05838)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from training.autoencoder import Update
from training.losses import gradient_penalty
from training.models.flexae import FlexAE
from training.networks import ImageShape, conv_critic


class FlexAESR(FlexAE):
    """FlexAE, and K, which tells images from x̃ = D(a·E(x) + (1 − a)·E(x')), a ~ U(0, 1) one a sample.

    The second images x' are those of the same batch in reverse. What the sources leave open: K has the width of
    the encoder, Glorot-normal weights, and sees each critic step's own batch.
    """

    betas = FlexAE.betas | {"image_critic": (0.5, 0.9), "smoothing": (0.5, 0.9)}

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
        self.image_critic = conv_critic(image_shape, self.encoder[0].out_channels, self.encoder[-1].in_features)
        self.image_penalty = image_penalty
        self.learning_rates |= {"image_critic": image_critic_lr, "smoothing": smoothing_lr}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        return super().optimizers() | {
            "image_critic": self._adam("image_critic", self.image_critic.parameters()),
            "smoothing": self._adam("smoothing", autoencoder),
        }

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        yield self._reconstruction(next(batches))
        for _ in range(self.critic_steps):
            x = next(batches)
            noise = self.prior.noise(len(x))
            yield "critic", self._critic_terms(self.codes(x), noise, self.penalty)
            between = self.interpolates(x)
            yield (
                "image_critic",
                {
                    "wasserstein": self.image_critic(between).mean() - self.image_critic(x).mean(),
                    "penalty": self.image_penalty * gradient_penalty(self.image_critic, x, between),
                },
            )
        yield "smoothing", {"adversarial": -self.image_critic(self.interpolates(x, gradient=True)).mean()}
        yield from self._matching(x, noise)

    def interpolates(self, x: Tensor, *, gradient: bool = False) -> Tensor:
        """Decoded latents between those of each image and of another in the batch, [B, C, H, W]."""
        codes = self.codes(x, gradient=gradient)
        mix = torch.rand(len(x), 1, device=x.device)
        return self.images(mix * codes + (1.0 - mix) * codes.flip(0), gradient=gradient)
