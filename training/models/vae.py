"""VAE: the variational auto-encoder with one of three likelihoods; with a weight on the KL term it is the β-VAE."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from training.autoencoder import Autoencoder
from training.losses import gaussian_kl, gaussian_nll, sum_binary_cross_entropy, sum_squared_error
from training.networks import ImageShape, conv_decoder, conv_encoder
from training.optimizers import Update, adam
from training.priors.standard_normal import StandardNormal

Likelihood = Literal["cross-entropy", "fixed-variance", "learned-variance"]
_LEAST_GAMMA: Final = 1e-3  # a quarter of a grey level: a smaller γ would describe the rounding of pixels


class VAE(Autoencoder):
    """The encoder gives each image a Gaussian over latents; the KL divergence keeps it close to the prior N(0, I).

    https://arxiv.org/abs/1312.6114, equation 10. β-VAE: Higgins et al., ICLR 2017. Learned variance:
    https://arxiv.org/abs/1903.05789. The loss is the negative log-likelihood of an image, summed over its pixels,
    plus β times the KL divergence of its Gaussian from the prior, with one sample of the Gaussian for each image. The
    encoder's output is [B, 2m]: the means and the log-variances. `encode` returns the means; `latents` draws samples.

    Where the sources are silent: the networks are FlexAE's with its batch norm, the optimiser is Adam with a constant
    learning rate of 1e-3, and a learned γ is kept at 0.001 or more.

    Args:
        latent_dim: Dimensions m of the latent space.
        likelihood: Distribution of a pixel: "cross-entropy" (Bernoulli), "fixed-variance" (Gaussian with standard
            deviation γ = 1; on small images the KL term then closes almost every dimension) or "learned-variance"
            (Gaussian with one learned γ).
        first_gamma: γ of "learned-variance" at the start. With 1, as published, the KL term closes dimensions until γ
            has come down, which takes some thousand steps; a short training wants less.
        beta: Weight of the KL term; 1 is the VAE. Higher values bring the latents closer to the prior and make
            reconstructions blurrier.
        warmup: First fraction of the training, over which the weight of the KL term rises from beta / 100 to beta; 0
            for none.
        filters: Channels of the first convolution; each further one has twice as many as the one before.
        stages: Convolutions in the encoder, and as many in the decoder; each halves or doubles the sides. 2 is as
            published; auto takes as many as leave 7 pixels a side, and avoids a pattern of squares in the images.
        hidden: Width of the dense layers of encoder and decoder.
        lr: Learning rate.
    """

    normalised: ClassVar[bool] = True  # whether the encoder has batch norm

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 32,
        likelihood: Likelihood = "cross-entropy",
        first_gamma: PositiveFloat = 1.0,
        beta: NonNegativeFloat = 1.0,
        warmup: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0,
        filters: PositiveInt = 64,
        stages: PositiveInt | Literal["auto"] = 2,
        hidden: PositiveInt = 1024,
        lr: PositiveFloat = 1e-3,
    ) -> None:
        super().__init__()
        self.encoder = conv_encoder(
            image_shape, 2 * latent_dim, filters, hidden, stages=stages, normalised=self.normalised
        )
        self.decoder = conv_decoder(image_shape, latent_dim, filters, hidden, stages=stages)
        self.prior = StandardNormal(latent_dim)
        self.likelihood = likelihood
        self.beta = beta
        self.warmup = warmup
        self.lr = lr
        if likelihood == "learned-variance":
            self.log_gamma = nn.Parameter(torch.tensor(math.log(first_gamma)))
            self.largest_term = math.inf  # with a small γ, a large loss is no divergence

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        others = ("prior.", "posthoc.", "critic.")
        own = [parameter for name, parameter in self.named_parameters() if not name.startswith(others)]
        return {"autoencoder": adam(own, self.lr)}

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        x = next(batches)
        rows = self.rows(x)
        latents = self.latents(rows)
        weight = self.beta * min(1.0, max(0.01, progress / self.warmup)) if self.warmup else self.beta
        reconstruction = self.decode(latents)
        yield (
            "autoencoder",
            {
                "reconstruction": self._negative_log_likelihood(reconstruction, x),
                **self.perceptual_term(reconstruction, x, self._squared_error_weight()),
                "kl": weight * self.divergence(rows, latents),
                **self.further_terms(rows, latents),
            },
        )
        if self.likelihood == "learned-variance":
            with torch.no_grad():
                self.log_gamma.clamp_(min=math.log(_LEAST_GAMMA))

    def divergence(self, rows: Tensor, latents: Tensor) -> Tensor:
        """Return the KL divergence of the images' distributions of latents from the prior, averaged over the batch.

        Args:
            rows: The encoder's rows of the images, [B, D].
            latents: A latent of each image, drawn from its distribution, [B, m].
        """
        return gaussian_kl(*rows.chunk(2, dim=1))

    def further_terms(self, rows: Tensor, latents: Tensor) -> dict[str, Tensor]:
        """Return further terms of the loss, by name.

        Args:
            rows: The encoder's rows of the images, [B, D].
            latents: A latent of each image, drawn from its distribution, [B, m].
        """
        return {}

    def rows(self, x: Tensor) -> Tensor:
        """Return means and log-variances, [B, 2m]."""
        return self.encoder(x)

    def latents(self, rows: Tensor) -> Tensor:
        """Draw one latent from the Gaussian of each row."""
        mean, log_variance = rows.chunk(2, dim=1)
        return mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)

    def encode(self, x: Tensor) -> Tensor:
        """Return the means of the images' Gaussians, [B, m]."""
        return self.rows(x).chunk(2, dim=1)[0]

    def diagnostics(self) -> dict[str, float]:
        """Return γ if it is learned: the standard deviation of a pixel, on the scale of [0, 1]."""
        return {"gamma": self.log_gamma.exp().item()} if self.likelihood == "learned-variance" else {}

    def _squared_error_weight(self) -> float | Tensor:
        """Return the weight of the summed squared error in −ln p(x|z); a cross-entropy counts as one of 1/2."""
        return 0.5 * torch.exp(-2.0 * self.log_gamma.detach()) if self.likelihood == "learned-variance" else 0.5

    def _negative_log_likelihood(self, reconstruction: Tensor, x: Tensor) -> Tensor:
        match self.likelihood:
            case "cross-entropy":
                return sum_binary_cross_entropy(reconstruction, x)
            case "fixed-variance":
                return sum_squared_error(reconstruction, x) / 2.0
            case "learned-variance":
                return gaussian_nll(reconstruction, x, self.log_gamma)
