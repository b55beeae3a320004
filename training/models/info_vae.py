"""InfoVAE: a VAE that also compares the latents of whole batches with the prior."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from training.losses import gaussian_kernel, mmd
from training.models.vae import VAE
from training.networks import ImageShape
from training.priors.standard_normal import StandardNormal


class InfoVAE(VAE):
    """A VAE whose loss also holds the MMD of a batch's latents from N(0, I); without the KL term it is the MMD-VAE.

    https://arxiv.org/abs/1706.02262, the objective L_InfoVAE. With the paper's α and λ, `beta` is 1 − α and
    `mmd_weight` is α + λ − 1; the defaults are those of α = 0 and λ = 1000. The MMD is the biased estimate with the
    Gaussian kernel of the authors' code, of one latent for each image. That code weights the MMD by 1 beside the mean
    error over pixels, which for MNIST is a weight of 784 here.

    Where the sources are silent: the likelihood is the VAE's. The encoder is random, where that of the authors' code
    is deterministic.

    Args:
        mmd_weight: Weight of the MMD. Higher values bring the latents of all images together closer to the prior.
    """

    prior: StandardNormal

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 20,
        mmd_weight: NonNegativeFloat = 999.0,
        **vae: Any,
    ) -> None:
        super().__init__(image_shape, latent_dim=latent_dim, **vae)
        self.kernel = partial(gaussian_kernel, latent_dim=latent_dim)
        self.mmd_weight = mmd_weight

    def further_terms(self, rows: Tensor, latents: Tensor) -> dict[str, Tensor]:
        noise = self.prior.noise(len(latents))
        return {"mmd": self.mmd_weight * mmd(latents, noise, self.kernel, unbiased=False)}
