"""RAE: a deterministic auto-encoder with a regularised decoder, whose prior is fitted when it is finished."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Final, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils import parametrizations, parametrize

from training.autoencoder import Autoencoder, Exportable
from training.networks import ImageShape, conv_decoder, conv_encoder
from training.optimizers import Update, adam

# How the names of the tensors begin that a bundle needs.
_EXPORTED: Final = ("encoder.", "decoder.", "posthoc.")


class RAE(Autoencoder):
    """A deterministic auto-encoder; one penalty keeps its latents small, another keeps its decoder smooth.

    https://arxiv.org/abs/1903.12436. The model has no prior of its own: its recipes name a posthoc prior, which is a
    mixture of 10 Gaussians in the paper. With every penalty at 0 the model is the plain auto-encoder (AE + GMM). The
    penalties may be combined.

    The losses have the scale of the authors' code: means over pixels and over latent dimensions. The defaults are the
    published weights of RAE-L2 on MNIST. Ours: the networks are FlexAE's with its batch norm, and the learning rate
    is constant, where the authors reduce it when the error no longer falls.

    Args:
        latent_dim: Dimensions m of the latent space.
        latent_penalty: β, the weight of the mean of z². Higher values make the latents smaller.
        weight_penalty: λ of RAE-L2, the weight of the sum of the decoder's squared weights, without biases and batch
            norm.
        gradient_penalty: λ of RAE-GP, the weight of the mean of (∂ Σ x̂² / ∂z)².
        gradient_share: Share of the steps, drawn at random, that have the gradient penalty; its weight is divided by
            the share. Such a step takes several times as long as another one. The published share is 1.
        spectral_norm: Whether each layer's weights are divided by their largest singular value
            (https://arxiv.org/abs/1802.05957), in encoder and decoder: RAE-SN.
        filters: Channels of the first convolution; each further one has twice as many as the one before.
        stages: Convolutions in the encoder, and as many in the decoder; each halves or doubles the sides. 2 is as
            published; auto takes as many as leave 7 pixels a side, and avoids a pattern of squares in the images.
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
        gradient_share: Annotated[float, Field(gt=0, le=1)] = 1.0,
        spectral_norm: bool = False,
        filters: PositiveInt = 64,
        stages: PositiveInt | Literal["auto"] = 2,
        hidden: PositiveInt = 1024,
        lr: PositiveFloat = 5e-4,
    ) -> None:
        super().__init__()
        self.encoder = conv_encoder(image_shape, latent_dim, filters, hidden, stages=stages)
        self.decoder = conv_decoder(image_shape, latent_dim, filters, hidden, stages=stages)
        if spectral_norm:
            for layer in [*self.encoder, *self.decoder]:
                if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                    parametrizations.spectral_norm(layer)
        self.without_spectral_norm = partial(
            RAE, image_shape, latent_dim=latent_dim, filters=filters, stages=stages, hidden=hidden
        )
        self.latent_penalty = latent_penalty
        self.weight_penalty = weight_penalty
        self.gradient_penalty = gradient_penalty
        self.gradient_share = gradient_share
        self.compiles = not gradient_penalty
        self.lr = lr

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"autoencoder": adam([*self.encoder.parameters(), *self.decoder.parameters()], self.lr)}

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        yield "autoencoder", self.terms(next(batches))[1]

    def terms(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the reconstructions of images, both [B, C, H, W], and the terms of their loss."""
        latents = self.encode(x)
        reconstruction = self.decode(latents)
        terms = {"reconstruction": mse_loss(reconstruction, x)}
        terms |= self.perceptual_term(reconstruction, x, weight=1.0 / x[0].numel())
        if self.latent_penalty:
            terms["latent"] = self.latent_penalty * latents.square().mean()
        if self.weight_penalty:
            weights = [weight for weight in self.decoder.parameters() if weight.dim() > 1]
            terms["weight"] = self.weight_penalty * torch.stack([w.square().sum() for w in weights]).sum()
        if self.gradient_penalty and (self.gradient_share == 1 or torch.rand(()) < self.gradient_share):
            (gradient,) = torch.autograd.grad(reconstruction.square().sum(), latents, create_graph=True)
            terms["gradient"] = self.gradient_penalty / self.gradient_share * gradient.square().mean()
        return reconstruction, terms

    def for_export(self, mean: Tensor, *, prune: bool = True) -> Exportable:
        """Return the model with plain weights in place of spectral norm. It must be in evaluation mode."""
        exported = {name: layer for name, layer in self.named_modules() if name.startswith(_EXPORTED)}
        spectral = {name: layer for name, layer in exported.items() if parametrize.is_parametrized(layer)}
        if not spectral:
            return super().for_export(mean, prune=prune)
        kept = {name: value for name, value in self.state_dict().items() if name.startswith(_EXPORTED)}
        state = {name: value for name, value in kept.items() if "parametrizations" not in name}
        plain = self.without_spectral_norm()
        plain.posthoc = self.posthoc
        plain.load_state_dict(state | {f"{name}.weight": layer.weight for name, layer in spectral.items()})
        return Exportable(plain.eval(), list(range(plain.sampler.latent_dim)))
