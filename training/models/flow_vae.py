"""VAE + flow: a VAE whose encoder gives each image more than a Gaussian over latents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt
from torch import Tensor

from training.couplings import Couplings
from training.losses import gaussian_log_density
from training.models.vae import VAE
from training.networks import ImageShape, conv_encoder
from training.priors.standard_normal import StandardNormal


class FlowVAE(VAE):
    """A VAE whose posterior is a Gaussian that coupling layers transform, in a way of its own for each image.

    https://arxiv.org/abs/1505.05770, equations 7 and 15, with the context of https://arxiv.org/abs/1606.04934. The
    encoder's output is [B, 2m + c]: means, log-variances, and a context that the layers' networks see. A latent z is
    the map of a sample of the Gaussian q₀. In place of the KL divergence stands ln q(z|x) − ln p(z) of that latent,
    where ln q(z|x) = ln q₀ − ln |det|. `encode` returns the map of the mean, which is not the mean of the latents.

    Where the sources are silent: which flow the talk used. Ours is RealNVP's (https://arxiv.org/abs/1605.08803).
    Without a context, the same flow for all images would amount to a flow as the prior.

    Args:
        flow_layers: Number of coupling layers.
        flow_hidden: Width of the hidden layers of each coupling's network.
        context_dim: Dimensions c of the context.
    """

    prior: StandardNormal

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 32,
        filters: PositiveInt = 64,
        stages: PositiveInt | Literal["auto"] = 2,
        hidden: PositiveInt = 1024,
        flow_layers: Annotated[int, Field(ge=2)] = 4,
        flow_hidden: PositiveInt = 128,
        context_dim: PositiveInt = 32,
        **vae: Any,
    ) -> None:
        super().__init__(image_shape, latent_dim=latent_dim, filters=filters, stages=stages, hidden=hidden, **vae)
        self.encoder = conv_encoder(image_shape, 2 * latent_dim + context_dim, filters, hidden, stages=stages)
        self.couplings = Couplings(latent_dim, flow_layers, flow_hidden, context_dim)
        self.widths = (2 * latent_dim, context_dim)

    def divergence(self, rows: Tensor, latents: Tensor) -> Tensor:
        gaussian, context = rows.split(self.widths, dim=1)
        start, log_det = self.couplings.inverse(latents, context)
        posterior = gaussian_log_density(start, *gaussian.chunk(2, dim=1)) + log_det
        return (posterior - self.prior.log_density(latents)).mean()

    def rows(self, x: Tensor) -> Tensor:
        """Return means, log-variances and contexts, [B, 2m + c]."""
        return self.encoder(x)

    def latents(self, rows: Tensor) -> Tensor:
        gaussian, context = rows.split(self.widths, dim=1)
        return self.couplings(super().latents(gaussian), context)[0]

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents of the means of the images' Gaussians, [B, m]."""
        gaussian, context = self.rows(x).split(self.widths, dim=1)
        return self.couplings(gaussian.chunk(2, dim=1)[0], context)[0]
