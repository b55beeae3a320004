"""The prior of FlexAE (P-GEN in the paper): a network from noise to latents, trained against a critic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from rae_serve.errors import InvalidInput
from training.losses import critic_terms
from training.networks import glorot, mlp
from training.optimizers import Update, adam
from training.priors.base import Prior, Report, ignore
from training.priors.wrappers import Averaged

BETAS: Final = (0.0, 0.9)  # Adam's β₁ and β₂ for the critic and for what is trained against it


class Generator(Prior):
    """An MLP G from noise to latents, and the critic C that tells latents from G's samples.

    https://arxiv.org/abs/2006.05838. The critic belongs to the prior, so that the prior can be trained further on the
    latents of a finished auto-encoder. That training is ours; the paper trains G together with the auto-encoder only.

    Args:
        latent_dim: Dimensions m of a latent.
        noise_dim: Dimensions m' of the noise, at least latent_dim: with fewer, the prior has no density. The same as
            latent_dim unless given.
        hidden: Width of G's hidden layers.
        layers: Number of G's hidden layers.
        critic_hidden: Width of the critic's hidden layers.
        critic_layers: Number of the critic's hidden layers.
        average: Decay of the moving average of G's weights that evaluation uses; 0 for none.
        residual: Whether latents are noise + G(noise). The prior then starts near N(0, I), and the further steps
            start from exactly N(0, I).
        critic_steps: Critic steps for each further step of G.
        penalty: Weight of the gradient penalty in the further steps.
        generator_lr: Adam's learning rate of G in the further steps.
        critic_lr: Adam's learning rate of the critic in the further steps.

    Raises:
        InvalidInput: noise_dim is smaller than latent_dim.
    """

    network: Averaged | nn.Sequential

    def __init__(
        self,
        latent_dim: int,
        *,
        noise_dim: PositiveInt | None = None,
        hidden: PositiveInt = 512,
        layers: PositiveInt = 4,
        critic_hidden: PositiveInt = 512,
        critic_layers: PositiveInt = 4,
        average: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999,
        residual: bool = True,
        critic_steps: PositiveInt = 1,
        penalty: NonNegativeFloat = 1.0,
        generator_lr: PositiveFloat = 5e-4,
        critic_lr: PositiveFloat = 2e-4,
    ) -> None:
        noise_dim = noise_dim or latent_dim
        super().__init__(latent_dim, ["gaussian"] * noise_dim)
        if noise_dim < latent_dim:
            problem = f"must be at least latent_dim = {latent_dim} for a learned prior, not {noise_dim}"
            raise InvalidInput("noise_dim", problem)
        network = mlp(noise_dim, latent_dim, hidden, layers)
        self.network = Averaged(network, average) if average else network
        self.critic = mlp(latent_dim, 1, critic_hidden, critic_layers)
        self.residual = residual
        self.critic_steps = critic_steps
        self.penalty = penalty
        self.learning_rates = {"prior_critic": critic_lr, "prior_generator": generator_lr}

    def forward(self, noise: Tensor) -> Tensor:
        output = self.network(noise)
        return noise[:, : self.latent_dim] + output if self.residual else output

    @torch.no_grad()
    def start(self, latents: Tensor, held_out: Tensor, report: Report = ignore) -> None:
        """Restart at N(0, I) with a fresh critic if the prior is residual; otherwise keep what was learned."""
        if not self.residual:
            return
        for parameter in self._trained_network[-1].parameters():
            parameter.zero_()
        if isinstance(self.network, Averaged):
            self.network.restart()
        glorot(self.critic)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rates = self.learning_rates
        return {
            "prior_critic": adam(self.critic.parameters(), rates["prior_critic"], BETAS),
            "prior_generator": adam(self.generator_parameters(), rates["prior_generator"], BETAS),
        }

    def updates(self, latents: Iterator[Tensor], progress: float) -> Iterator[Update]:
        for _ in range(self.critic_steps):
            real = next(latents)
            noise = self.noise(len(real))
            yield "prior_critic", self.critic_terms(real, noise, self.penalty)
        yield "prior_generator", self.generator_terms(noise)
        self.update_average()

    def critic_terms(self, real: Tensor, noise: Tensor, penalty: float) -> dict[str, Tensor]:
        """Return the critic's loss: the negative Wasserstein-1 distance, and the gradient penalty.

        Args:
            real: Latents of images [B, latent_dim], which the critic learns to score high.
            noise: Noise [B, noise_dim]; the critic learns to score G's samples of it low.
            penalty: Weight of the gradient penalty.
        """
        return critic_terms(self.critic, real, self(noise).detach(), penalty)

    def generator_terms(self, noise: Tensor) -> dict[str, Tensor]:
        """Return the loss of G: the negative mean score of G's samples."""
        return {"adversarial": -self.critic(self(noise)).mean()}

    def update_average(self) -> None:
        """Update the average of G's weights, if there is one."""
        if isinstance(self.network, Averaged):
            self.network.update()

    def generator_parameters(self) -> list[Tensor]:
        """Return the trained parameters of G."""
        return list(self._trained_network.parameters())

    @property
    def _trained_network(self) -> nn.Sequential:
        return self.network.network if isinstance(self.network, Averaged) else self.network
