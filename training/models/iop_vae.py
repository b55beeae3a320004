"""VAE-IOP: a VAE whose prior is close to the distribution of its own latents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from training.models.vae import VAE
from training.networks import ImageShape
from training.optimizers import Update, adam
from training.priors.iop import IOP


class IOPVAE(VAE):
    """A VAE whose prior is the distribution q(z) of its latents, by a network T that learns ln q(z) / N(z; 0, I).

    https://arxiv.org/abs/1809.05284. The mean of T over one latent of each image is subtracted from the KL
    divergence. After each update of the VAE, T is updated on latents of other batches. When the training is done, the
    prior is drawn by T, as `training/priors/iop.py` describes; further steps of the prior (`prior_steps`) update T
    alone.

    Ours: the networks are FlexAE's, and the weight of the divergence rises over a fraction of the training.

    Args:
        ratio_steps: Updates of T for each update of the VAE.
        ratio_hidden: Width of T's three hidden layers.
        ratio_lr: Learning rate of T.
    """

    prior: IOP

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 40,
        warmup: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2,
        lr: PositiveFloat = 1e-4,
        ratio_steps: PositiveInt = 10,
        ratio_hidden: PositiveInt = 500,
        ratio_lr: PositiveFloat = 1e-3,
        **vae: Any,
    ) -> None:
        super().__init__(image_shape, latent_dim=latent_dim, warmup=warmup, lr=lr, **vae)
        self.prior = IOP(latent_dim, hidden=ratio_hidden, lr=ratio_lr)
        self.ratio_steps = ratio_steps

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return super().optimizers() | {"ratio": adam(self.prior.network.parameters(), self.prior.lr)}

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        yield from super().updates(batches, progress)
        for _ in range(self.ratio_steps):
            for _, terms in self.prior.updates(map(self.codes, batches), progress):
                yield "ratio", terms

    def divergence(self, rows: Tensor, latents: Tensor) -> Tensor:
        return super().divergence(rows, latents) - self.prior.log_ratio(latents).mean()
