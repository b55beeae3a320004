"""FlexAE: a deterministic auto-encoder whose prior is learned jointly with it (UAI 2021, arXiv 2006.05838)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from training.autoencoder import Autoencoder, Update
from training.losses import gradient_penalty, sum_squared_error
from training.networks import ImageShape, conv_decoder, conv_encoder, mlp
from training.priors import Generator


class FlexAE(Autoencoder):
    """E and D reconstruct; C measures the Wasserstein-1 distance of codes from G's samples; G and E shorten it.

    The λ of the paper's objective is nowhere in the authors' code: each loss has an optimiser of its own, and
    the ratio of the learning rates plays λ's part. Defaults are the published settings for MNIST.
    """

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
    ) -> None:
        super().__init__()
        self.encoder = conv_encoder(image_shape, latent_dim, filters, hidden)
        self.decoder = conv_decoder(image_shape, latent_dim, filters, hidden)
        self.prior = Generator(latent_dim, noise_dim or latent_dim, prior_hidden, prior_layers)
        self.critic = mlp(latent_dim, 1, critic_hidden, critic_layers)
        self.critic_steps = critic_steps
        self.penalty = penalty
        self.learning_rates = {
            "autoencoder": autoencoder_lr,
            "critic": critic_lr,
            "generator": generator_lr,
            "encoder": encoder_lr,
        }

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        lr = self.learning_rates
        return {
            "autoencoder": _adam(autoencoder, lr["autoencoder"], betas=(0.9, 0.999)),
            "critic": _adam(self.critic.parameters(), lr["critic"], betas=(0.0, 0.9)),
            "generator": _adam(self.prior.parameters(), lr["generator"], betas=(0.0, 0.9)),
            "encoder": _adam(self.encoder.parameters(), lr["encoder"], betas=(0.0, 0.9)),
        }

    def updates(self, batches: Iterator[Tensor], step: int) -> Iterator[Update]:
        x = next(batches)
        yield "autoencoder", {"reconstruction": sum_squared_error(self.decode(self.encode(x)), x)}
        for _ in range(self.critic_steps):
            x = next(batches)
            noise = self.prior.noise(len(x))
            real, fake = self.codes(x), self.prior(noise).detach()
            yield "critic", {
                "wasserstein": self.critic(fake).mean() - self.critic(real).mean(),
                "penalty": self.penalty * gradient_penalty(self.critic, real, fake),
            }
        yield "generator", {"adversarial": -self.critic(self.prior(noise)).mean()}
        yield "encoder", {"adversarial": self.critic(self.codes(x, gradient=True)).mean()}


def _adam(parameters: Iterable[Tensor], lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=1e-8, fused=True)
