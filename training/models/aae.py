"""AAE: an adversarial auto-encoder with a Wasserstein critic, which is MaskAAE without its mask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from training.autoencoder import Autoencoder
from training.losses import binary_cross_entropy, critic_terms
from training.networks import ImageShape, conv_decoder, conv_encoder, mlp, mlp_decoder, mlp_encoder
from training.optimizers import TensorFlowRMSprop, Update
from training.priors.standard_normal import StandardNormal

PUBLISHED_DIM: Final = 48  # m of MaskAAE's published settings for MNIST
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class AAE(Autoencoder):
    """An auto-encoder whose latents match N(0, I): a critic tells them apart, and the encoder follows the critic.

    The critic, the optimisers and the defaults are those of MaskAAE (https://arxiv.org/abs/1912.04564, with the
    settings for MNIST), so that the two systems differ by the mask alone. The original AAE
    (https://arxiv.org/abs/1511.05644) has a critic with cross-entropy: that is the model wae_gan.

    Args:
        latent_dim: Dimensions m of the latent space.
        network: Encoder and decoder: "mlp" as published for MNIST, or "conv" as FlexAE's, with no batch norm in the
            decoder. The authors' networks for other data are unknown.
        filters: Channels of the first convolution of "conv"; each further one has twice as many as the one before.
        stages: Convolutions of "conv" in the encoder, and as many in the decoder; each halves or doubles the sides.
            2 is as published; auto takes as many as leave 7 pixels a side, and avoids a pattern of squares in the
            images.
        hidden: Width of the hidden layers of encoder and decoder.
        layers: Number of the hidden layers of "mlp".
        critic_hidden: Width of the critic's hidden layers.
        critic_layers: Number of the critic's hidden layers.
        critic_steps: Critic updates for each auto-encoder update.
        penalty: Weight of the critic's gradient penalty.
        period: R of MaskAAE's paper, as a fraction of the run after the warm-up. At 5R, the learning rate of the
            auto-encoder falls to a fifth.
        warmup: Fraction of the run before that schedule begins.
        autoencoder_lr: Learning rate of the reconstruction.
        critic_lr: Learning rate of the critic.
        encoder_lr: Learning rate by which the encoder follows the critic.
        weight_decay: Decoupled weight decay of the auto-encoder's update. Ours.
    """

    encoder: nn.Sequential
    decoder: nn.Sequential
    prior: StandardNormal

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = PUBLISHED_DIM,
        network: Literal["mlp", "conv"] = "mlp",
        filters: PositiveInt = 64,
        stages: PositiveInt | Literal["auto"] = 2,
        hidden: PositiveInt = 1024,
        layers: PositiveInt = 4,
        critic_hidden: PositiveInt = 1024,
        critic_layers: PositiveInt = 4,
        critic_steps: PositiveInt = 5,
        penalty: NonNegativeFloat = 10.0,
        period: PositiveFloat = 0.0108,
        warmup: Fraction = 0.0,
        autoencoder_lr: PositiveFloat = 5e-4,
        critic_lr: PositiveFloat = 1e-4,
        encoder_lr: PositiveFloat = 1e-4,
        weight_decay: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__()
        if network == "mlp":
            self.encoder = mlp_encoder(image_shape, latent_dim, hidden, layers)
            self.decoder = mlp_decoder(image_shape, latent_dim, hidden, layers)
        else:
            self.encoder = conv_encoder(image_shape, latent_dim, filters, hidden, stages=stages)
            # Batch norm would undo a factor that all α share, and then nothing would keep a mask open.
            self.decoder = conv_decoder(image_shape, latent_dim, filters, hidden, stages=stages, normalised=False)
        self.critic = mlp(latent_dim, 1, critic_hidden, critic_layers)
        self.prior = StandardNormal(latent_dim)
        self.critic_steps = critic_steps
        self.penalty = penalty
        self.period = period
        self.warmup = warmup
        self.learning_rates = {"autoencoder": autoencoder_lr, "critic": critic_lr, "encoder": encoder_lr}
        self.weight_decay = weight_decay

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rates = self.learning_rates
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        return {
            "autoencoder": TensorFlowRMSprop(autoencoder, rates["autoencoder"], weight_decay=self.weight_decay),
            "critic": TensorFlowRMSprop(self.critic.parameters(), rates["critic"]),
            "encoder": TensorFlowRMSprop(self.encoder.parameters(), rates["encoder"]),
        }

    def rate(self, optimizer: str, progress: float) -> float:
        """Return 1, and from 5R on a fifth for the auto-encoder.

        The authors scale the loss instead, but the scale of a loss hardly changes the steps of RMSProp.
        """
        late = self.schedule_progress(progress) >= 5.0 * self.period
        return 0.2 if late and optimizer == "autoencoder" else 1.0

    def schedule_progress(self, progress: float) -> float:
        """Return how much of the run after the warm-up is done, from 0 to 1."""
        return max(0.0, (progress - self.warmup) / (1.0 - self.warmup))

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        x = next(batches)
        yield "autoencoder", self.autoencoder_terms(x, self.encode(x))
        for _ in range(self.critic_steps):
            latents = self.codes(next(batches))
            # Unlike in FlexAE, the prior is "real".
            real, fake = self.critic_input(self.prior.noise(len(latents))), self.critic_input(latents)
            yield "critic", critic_terms(self.critic, real, fake, self.penalty)
        latents = self.codes(next(batches), gradient=True)
        yield "encoder", {"adversarial": -self.critic(self.critic_input(latents)).mean()}

    def autoencoder_terms(self, x: Tensor, latents: Tensor) -> dict[str, Tensor]:
        """Return what encoder and decoder minimise together, for images and their latents."""
        reconstruction = self.decode(latents)
        # The cross-entropy is a mean over pixels, and counts as half of a squared error.
        perceptual = self.perceptual_term(reconstruction, x, 0.5 / x[0].numel())
        return {"reconstruction": binary_cross_entropy(reconstruction, x), **perceptual}

    def critic_input(self, latents: Tensor) -> Tensor:
        """Return what the critic sees of latents [B, m]."""
        return latents
