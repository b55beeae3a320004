"""RAE: a deterministic auto-encoder with a regularised decoder, and a mixture of Gaussians as its prior."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import mse_loss

from training.autoencoder import Autoencoder
from training.networks import ImageShape, conv_decoder, conv_encoder
from training.optimizers import Update, adam
from training.priors.mixture import Mixture


class RAE(Autoencoder):
    """A deterministic auto-encoder; one penalty keeps its latents small, another keeps its decoder smooth.

    https://arxiv.org/abs/1903.12436. The prior is fitted to the latents of the training images when the
    auto-encoder is finished. With every penalty at 0 the model is the plain auto-encoder (AE + GMM). The
    penalties may be combined. RAE-SN, with spectral norm, is not available.

    The losses have the scale of the authors' code: means over pixels and over latent dimensions. The defaults are the
    published weights of RAE-L2 on MNIST. Ours: the networks are FlexAE's with its batch norm, and the learning rate
    is constant, where the authors reduce it when the error no longer falls.

    Args:
        latent_dim: Dimensions m of the latent space.
        latent_penalty: β, the weight of the mean of z². Higher values make the latents smaller.
        weight_penalty: λ of RAE-L2, the weight of the sum of the decoder's squared weights, without biases and batch
            norm.
        gradient_penalty: λ of RAE-GP, the weight of the mean of (∂ Σ x̂² / ∂z)².
        components: Number of Gaussians of the prior. More match the latents more closely; with too many, a Gaussian
            describes single training images.
        filters: Channels of the first convolution; the second has twice as many.
        hidden: Width of the dense layers of encoder and decoder.
        lr: Learning rate of Adam.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 16,
        latent_penalty: NonNegativeFloat = 1e-4,
        weight_penalty: NonNegativeFloat = 1e-7,
        gradient_penalty: NonNegativeFloat = 0.0,
        components: PositiveInt = 10,
        filters: PositiveInt = 64,
        hidden: PositiveInt = 1024,
        lr: PositiveFloat = 5e-4,
    ) -> None:
        super().__init__()
        self.encoder = conv_encoder(image_shape, latent_dim, filters, hidden)
        self.decoder = conv_decoder(image_shape, latent_dim, filters, hidden)
        self.prior = Mixture(latent_dim, components=components)
        self.latent_penalty = latent_penalty
        self.weight_penalty = weight_penalty
        self.gradient_penalty = gradient_penalty
        self.lr = lr

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"autoencoder": adam([*self.encoder.parameters(), *self.decoder.parameters()], self.lr)}

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        x = next(batches)
        latents = self.encode(x)
        reconstruction = self.decode(latents)
        terms = {"reconstruction": mse_loss(reconstruction, x)}
        if self.latent_penalty:
            terms["latent"] = self.latent_penalty * latents.square().mean()
        if self.weight_penalty:
            weights = [weight for weight in self.decoder.parameters() if weight.dim() > 1]
            terms["weight"] = self.weight_penalty * torch.stack([w.square().sum() for w in weights]).sum()
        if self.gradient_penalty:
            (gradient,) = torch.autograd.grad(reconstruction.square().sum(), latents, create_graph=True)
            terms["gradient"] = self.gradient_penalty * gradient.square().mean()
        yield "autoencoder", terms
