"""FlexAE: a deterministic auto-encoder whose prior is learned jointly with it (UAI 2021, arXiv 2006.05838)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from training.autoencoder import Autoencoder, Update
from training.losses import gradient_penalty, sum_squared_error
from training.networks import ImageShape, conv_decoder, conv_encoder, glorot, mlp
from training.priors.generator import Generator


class FlexAE(Autoencoder):
    """E and D reconstruct; C measures the Wasserstein-1 distance of codes from G's samples; G and E shorten it.

    The λ of the paper's objective is nowhere in the authors' code: each loss has an optimiser of its own, and
    the ratio of the learning rates plays λ's part. Defaults are the published settings for MNIST; `average` and
    the further steps of the prior, which `prior_…` set, are ours and off unless a recipe asks for them.
    """

    # Of Adam; (0, 0.9) for all that play the game with the critic.
    betas: ClassVar[dict[str, tuple[float, float]]] = {"autoencoder": (0.9, 0.999)}

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 32,
        noise_dim: PositiveInt | None = None,
        filters: PositiveInt = 64,
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
        self.encoder = conv_encoder(image_shape, latent_dim, filters, hidden)
        self.decoder = conv_decoder(image_shape, latent_dim, filters, hidden)
        self.prior = Generator(
            latent_dim, noise_dim or latent_dim, prior_hidden, prior_layers, average=average, whitened=prior_whitened
        )
        self.critic = mlp(latent_dim, 1, critic_hidden, critic_layers)
        self.critic_steps = critic_steps
        self.penalty = penalty
        self.prior_critic_steps = prior_critic_steps
        self.prior_penalty = prior_penalty
        self.learning_rates = {
            "autoencoder": autoencoder_lr,
            "critic": critic_lr,
            "generator": generator_lr,
            "encoder": encoder_lr,
            "prior_critic": prior_critic_lr,
            "prior_generator": prior_generator_lr,
        }

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = {
            "autoencoder": [*self.encoder.parameters(), *self.decoder.parameters()],
            "critic": self.critic.parameters(),
            "generator": self.prior.network.parameters(),
            "encoder": self.encoder.parameters(),
            "prior_critic": self.critic.parameters(),
            "prior_generator": self.prior.network.parameters(),
        }
        return {name: self._adam(name, parameters[name]) for name in parameters}

    def _adam(self, name: str, parameters: Iterable[Tensor]) -> torch.optim.Adam:
        betas = self.betas.get(name, (0.0, 0.9))
        return torch.optim.Adam(parameters, lr=self.learning_rates[name], betas=betas, eps=1e-8, fused=True)

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        yield self._reconstruction(next(batches))
        for _ in range(self.critic_steps):
            x = next(batches)
            noise = self.prior.noise(len(x))
            yield "critic", self._critic_terms(self.codes(x), noise, self.penalty)
        yield from self._matching(x, noise)

    def start_prior(self, codes: Tensor) -> None:
        """Where the prior is to be whitened, it and the critic start afresh, at the Gaussian of the codes."""
        if self.prior.whitened:
            self.prior.start_at(codes)
            glorot(self.critic)

    def prior_updates(self, codes: Iterator[Tensor], progress: float) -> Iterator[Update]:
        """Generator and critic go on against codes that no longer move, in the prior's own coordinates.

        Ours, not the paper's: what the prior lacks after the joint training is steps, and here they are cheap.
        """
        for _ in range(self.prior_critic_steps):
            real = self.prior.whiten(next(codes))
            noise = self.prior.noise(len(real))
            yield "prior_critic", self._critic_terms(real, noise, self.prior_penalty)
        yield "prior_generator", {"adversarial": -self.critic(self.prior.white(noise)).mean()}
        self.prior.update_average()

    def _reconstruction(self, x: Tensor) -> Update:
        return "autoencoder", {"reconstruction": sum_squared_error(self.decode(self.encode(x)), x)}

    def _critic_terms(self, real: Tensor, noise: Tensor, penalty: float) -> dict[str, Tensor]:
        """The Wasserstein-1 distance by the critic's sign, `real` being codes, and the gradient penalty."""
        fake = self.prior.white(noise).detach()
        return {
            "wasserstein": self.critic(fake).mean() - self.critic(real).mean(),
            "penalty": penalty * gradient_penalty(self.critic, real, fake),
        }

    def _matching(self, x: Tensor, noise: Tensor) -> Iterator[Update]:
        """Generator and encoder approach each other, on the last critic step's images and noise."""
        yield "generator", {"adversarial": -self.critic(self.prior.white(noise)).mean()}
        self.prior.update_average()
        yield "encoder", {"adversarial": self.critic(self.codes(x, gradient=True)).mean()}
