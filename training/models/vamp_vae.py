"""VAE + VampPrior: a VAE whose prior is the mixture of what its encoder says about learned pseudo-inputs."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Final, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from training.losses import gaussian_log_density
from training.models.vae import VAE
from training.networks import ImageShape
from training.priors.components import Components

_LOG_VARIANCES: Final = (-6.0, 2.0)  # the least and the greatest ln σ² of the encoder


class VampVAE(VAE):
    """A VAE with the prior 1/K Σ q(z|u_k), where u_k are learned images, the pseudo-inputs.

    https://arxiv.org/abs/1705.07120. The loss has ln q(z|x) − ln 1/K Σ q(z|u_k) in place of the KL divergence, with
    one sample z for each image. The encoder has no batch norm: with it, a pseudo-input would have one Gaussian in
    training, where the batch normalises it, and another in evaluation. Whenever the model goes from training to
    evaluation, the prior takes over the Gaussians of the pseudo-inputs.

    The log-variances are kept between −6 and 2, as in the authors' code. Ours: the networks are FlexAE's, the
    optimiser is Adam, and the weight of the divergence rises over a fraction of the training, not over 100 epochs.
    The pixels of the pseudo-inputs start at N(μ, (μ/5)²), or with a deviation of (1 − μ)/5 if that is less: so nearly
    all lie between 0 and 1, outside of which a pixel has no gradient.

    Args:
        components: Number of pseudo-inputs K. More match the latents more closely and take longer.
        pseudo_mean: μ, the mean of the pseudo-inputs' pixels at the start. The authors take 0.05 for MNIST and about
            0.5 for photographs.
    """

    normalised: ClassVar[bool] = False
    prior: Components

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 40,
        warmup: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2,
        lr: PositiveFloat = 5e-4,
        components: PositiveInt = 500,
        pseudo_mean: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5,
        **vae: Any,
    ) -> None:
        super().__init__(image_shape, latent_dim=latent_dim, warmup=warmup, lr=lr, **vae)
        deviation = 0.2 * min(pseudo_mean, 1.0 - pseudo_mean)
        self.pseudo_inputs = nn.Parameter(pseudo_mean + deviation * torch.randn(components, *image_shape))
        self.prior = Components(latent_dim, components, diagonal=True)

    def rows(self, x: Tensor) -> Tensor:
        mean, log_variance = super().rows(x).chunk(2, dim=1)
        return torch.cat([mean, log_variance.clamp(*_LOG_VARIANCES)], dim=1)

    def divergence(self, rows: Tensor, latents: Tensor) -> Tensor:
        mean, log_variance = rows.chunk(2, dim=1)
        means, log_variances = self.pseudo_rows().chunk(2, dim=1)
        posterior = gaussian_log_density(latents, mean, log_variance)
        components = gaussian_log_density(latents[:, None], means, log_variances)
        return (posterior - components.logsumexp(dim=1) + math.log(len(means))).mean()

    def pseudo_rows(self) -> Tensor:
        """Return the encoder's rows of the pseudo-inputs, [K, 2m]."""
        return self.rows(self.pseudo_inputs.clamp(0.0, 1.0))

    def train(self, mode: bool = True) -> Self:
        if self.training and not mode:
            self._place_components()
        return super().train(mode)

    @torch.no_grad()
    def _place_components(self) -> None:
        means, log_variances = self.pseudo_rows().chunk(2, dim=1)
        equal = torch.full((len(means),), 1.0 / len(means), dtype=torch.float64)
        self.prior.place(equal, means, torch.exp(0.5 * log_variances))
