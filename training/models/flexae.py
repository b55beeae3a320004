"""FlexAE: a deterministic auto-encoder whose prior is learned with it (UAI 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from training.autoencoder import Autoencoder
from training.networks import ImageShape, conv_decoder, conv_encoder
from training.optimizers import Update, adam
from training.priors.generator import BETAS, Generator
from training.priors.wrappers import Whitened


class FlexAE(Autoencoder):
    """An encoder E and a decoder D reconstruct images; a generator G is the prior.

    https://arxiv.org/abs/2006.05838. A critic C measures the Wasserstein-1 distance between E's latents and G's
    samples, and G and E shorten that distance. The weight λ of the paper's objective appears nowhere in the authors'
    code: every loss has its own optimiser, and the ratio of the learning rates takes the place of λ.

    The defaults are the published settings for MNIST. The moving average of G's weights (`average`) and further steps
    of the prior after the joint training (`prior_steps` of the recipe) are ours, and off by default. Where the
    sources are silent: the encoder keeps torch's initial weights, and only the auto-encoder's own update records
    batch-norm statistics.

    Args:
        latent_dim: Dimensions m of the latent space.
        noise_dim: Dimensions m' of the prior's noise, at least latent_dim; the same as latent_dim unless given.
        filters: Channels of the first convolution; each further one has twice as many as the one before.
        stages: Convolutions in the encoder, and as many in the decoder; each halves or doubles the sides. 2 is as
            published; auto takes as many as leave 7 pixels a side, and avoids a pattern of squares in the images.
        hidden: Width of the dense layers of encoder and decoder.
        prior_hidden: Width of G's hidden layers.
        prior_layers: Number of G's hidden layers. With too few, G cannot match the latents; with too many, it
            memorises those of the training images.
        critic_hidden: Width of the critic's hidden layers.
        critic_layers: Number of the critic's hidden layers.
        critic_steps: Critic updates for each auto-encoder update.
        penalty: Weight of the critic's gradient penalty.
        autoencoder_lr: Learning rate of the reconstruction.
        critic_lr: Learning rate of the critic.
        generator_lr: Learning rate of G.
        encoder_lr: Learning rate by which E follows the critic. Higher values bring the latents closer to the prior
            and make reconstructions worse.
        average: Decay of the moving average of G's weights that samples come from; 0 for none.
        prior_generator_lr: Learning rate of G in the further steps of the prior.
        prior_critic_lr: Learning rate of the critic in the further steps.
        prior_critic_steps: Critic updates for each further step.
        prior_penalty: Weight of the gradient penalty in the further steps.
        prior_whitened: Whether the further steps start from the Gaussian that fits the latents. Its coordinates are
            then whitened: that Gaussian is N(0, I) in them.
    """

    prior: Generator | Whitened

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 32,
        noise_dim: PositiveInt | None = None,
        filters: PositiveInt = 64,
        stages: PositiveInt | Literal["auto"] = 2,
        hidden: PositiveInt = 1024,
        prior_hidden: PositiveInt = 1024,
        prior_layers: PositiveInt = 4,
        critic_hidden: PositiveInt = 1024,
        critic_layers: PositiveInt = 4,
        critic_steps: PositiveInt = 5,
        penalty: NonNegativeFloat = 10.0,
        autoencoder_lr: PositiveFloat = 2e-4,
        critic_lr: PositiveFloat = 1e-4,
        generator_lr: PositiveFloat = 2e-4,
        encoder_lr: PositiveFloat = 1e-5,
        average: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
        prior_generator_lr: PositiveFloat = 5e-4,
        prior_critic_lr: PositiveFloat = 2e-4,
        prior_critic_steps: PositiveInt = 1,
        prior_penalty: NonNegativeFloat = 1.0,
        prior_whitened: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = conv_encoder(image_shape, latent_dim, filters, hidden, stages=stages)
        self.decoder = conv_decoder(image_shape, latent_dim, filters, hidden, stages=stages)
        generator = Generator(
            latent_dim,
            noise_dim=noise_dim,
            hidden=prior_hidden,
            layers=prior_layers,
            critic_hidden=critic_hidden,
            critic_layers=critic_layers,
            average=average,
            residual=prior_whitened,
            critic_steps=prior_critic_steps,
            penalty=prior_penalty,
            generator_lr=prior_generator_lr,
            critic_lr=prior_critic_lr,
        )
        self.prior = Whitened(generator) if prior_whitened else generator
        self.filters = filters
        self.hidden = hidden
        self.critic_steps = critic_steps
        self.penalty = penalty
        self.learning_rates = {
            "autoencoder": autoencoder_lr,
            "critic": critic_lr,
            "generator": generator_lr,
            "encoder": encoder_lr,
        }

    @property
    def generator(self) -> Generator:
        """G and its critic. Their coordinates are those of the latents until `start_prior` whitens them."""
        inner = self.prior.prior if isinstance(self.prior, Whitened) else self.prior
        assert isinstance(inner, Generator)
        return inner

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rates = self.learning_rates
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        return {
            "autoencoder": adam(autoencoder, rates["autoencoder"]),
            "critic": adam(self.generator.critic.parameters(), rates["critic"], BETAS),
            "generator": adam(self.generator.generator_parameters(), rates["generator"], BETAS),
            "encoder": adam(self.encoder.parameters(), rates["encoder"], BETAS),
        }

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        yield self._reconstruct(next(batches))
        for _ in range(self.critic_steps):
            x = next(batches)
            noise = self.generator.noise(len(x))
            yield "critic", self.generator.critic_terms(self.codes(x), noise, self.penalty)
        yield from self._match(x, noise)

    def _reconstruct(self, x: Tensor) -> Update:
        return "autoencoder", self.squared_error_terms(self.decode(self.encode(x)), x)

    def _match(self, x: Tensor, noise: Tensor) -> Iterator[Update]:
        """Update G and E to shorten the distance, on the images and the noise of the last critic update."""
        generator = self.generator
        yield "generator", generator.generator_terms(noise)
        generator.update_average()
        yield "encoder", {"adversarial": generator.critic(self.codes(x, gradient=True)).mean()}
