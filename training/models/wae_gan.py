"""WAE-GAN: a deterministic auto-encoder whose latents match N(0, I) by a discriminator; the original AAE is alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import softplus

from training.autoencoder import Autoencoder
from training.networks import ImageShape, conv_decoder, conv_encoder, mlp
from training.optimizers import Update, adam
from training.priors.standard_normal import StandardNormal


class WAEGAN(Autoencoder):
    """A Wasserstein auto-encoder: the reconstruction error, plus λ times the loss of fooling a critic of latents.

    https://arxiv.org/abs/1711.01558, algorithm 1. The critic is a classifier with cross-entropy, to which samples of
    the prior are real, and the encoder takes the non-saturating loss. Except for the weight λ, this is the original
    AAE (https://arxiv.org/abs/1511.05644, figure 1). The defaults are the authors' settings for MNIST.

    Where the sources are silent, or their method does not fit: the networks are FlexAE's with its batch norm, the
    learning rates are constant, where the authors lower them in steps, the encoder is not trained before the decoder,
    and ln p(z) is not added to the critic's score, as the authors do for faces.

    Args:
        latent_dim: Dimensions m of the latent space.
        reconstruction_weight: Weight of the squared error, summed over the pixels of an image in [0, 1]. The authors'
            images of faces are in [-1, 1], so their weight of 0.05 is 0.2 here.
        adversarial_weight: λ, the weight of the adversarial losses, the critic's as well. Higher values bring the
            latents closer to the prior and make reconstructions blurrier.
        filters: Channels of the first convolution; each further one has twice as many as the one before.
        stages: Convolutions in the encoder, and as many in the decoder; each halves or doubles the sides. 2 is as
            published; auto takes as many as leave 7 pixels a side, and avoids a pattern of squares in the images.
        hidden: Width of the dense layers of encoder and decoder.
        critic_hidden: Width of the critic's hidden layers.
        critic_layers: Number of the critic's hidden layers.
        autoencoder_lr: Learning rate of encoder and decoder.
        critic_lr: Learning rate of the critic.
    """

    prior: StandardNormal

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 8,
        reconstruction_weight: PositiveFloat = 0.05,
        adversarial_weight: PositiveFloat = 10.0,
        filters: PositiveInt = 64,
        stages: PositiveInt | Literal["auto"] = 2,
        hidden: PositiveInt = 1024,
        critic_hidden: PositiveInt = 512,
        critic_layers: PositiveInt = 4,
        autoencoder_lr: PositiveFloat = 1e-3,
        critic_lr: PositiveFloat = 5e-4,
    ) -> None:
        super().__init__()
        self.encoder = conv_encoder(image_shape, latent_dim, filters, hidden, stages=stages)
        self.decoder = conv_decoder(image_shape, latent_dim, filters, hidden, stages=stages)
        self.critic = mlp(latent_dim, 1, critic_hidden, critic_layers)
        self.prior = StandardNormal(latent_dim)
        self.reconstruction_weight = reconstruction_weight
        self.adversarial_weight = adversarial_weight
        self.learning_rates = {"autoencoder": autoencoder_lr, "critic": critic_lr}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rates, betas = self.learning_rates, (0.5, 0.999)
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        return {
            "autoencoder": adam(autoencoder, rates["autoencoder"], betas),
            "critic": adam(self.critic.parameters(), rates["critic"], betas),
        }

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        x = next(batches)
        latents = self.encode(x)
        # The cross-entropy of a logit l is softplus(−l) for the class "real" and softplus(l) for the other.
        yield (
            "autoencoder",
            {
                **self.squared_error_terms(self.decode(latents), x, self.reconstruction_weight),
                "adversarial": self.adversarial_weight * softplus(-self.critic(latents)).mean(),
            },
        )
        real, fake = self.critic(self.prior.noise(len(x))), self.critic(self.codes(x))
        yield "critic", {"adversarial": self.adversarial_weight * (softplus(-real) + softplus(fake)).mean()}
