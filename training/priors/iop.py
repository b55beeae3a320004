"""The implicit optimal prior: N(0, I), resampled by a network that tells latents from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Final

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import dropout, softplus

from training.networks import mlp
from training.optimizers import Update, adam
from training.priors.components import Components
from training.priors.standard_normal import StandardNormal

_DROPPED: Final = 0.5  # the fraction of the last hidden layer that T's own updates drop
_CHUNK: Final = 20_000  # normals that T weighs at once


class IOP(Components):
    """A network T learns ln q(z) / N(z; 0, I) of latents ~ q; normals, resampled in proportion to e^T, are the prior.

    https://arxiv.org/abs/1809.05284. T learns it by telling latents from normals. With few latents, T knows them by
    heart after some hundred steps, and a mixture is the better prior.

    The paper leaves open how to sample the prior. Ours: `finish` draws a pool of normals and keeps centres of it, in
    proportion to e^T. All centres are equally likely, and a sample is a centre plus a little noise. So samples lie
    near finitely many points, while `log_density` is that of N(z; 0, I)·e^T / Z, from which the centres come, with Z
    estimated from the pool. If few normals of the pool have most of the weight, so do few centres; the effective
    sample size (Σ e^T)² / Σ e^2T tells how many. Where the sources are silent: T starts at 0. Before `finish`, the
    prior is N(0, I).

    Args:
        latent_dim: Dimensions m of a latent.
        hidden: Width of T's hidden layers.
        layers: Number of T's hidden layers.
        lr: Learning rate of T.
        pool: Number of normals that are resampled. More help if the effective sample size is below `centres`.
        centres: Number of centres that are kept of them.
        width: Standard deviation of the noise around a centre. Higher values make samples vary more and blur q.
    """

    effective_samples: Tensor
    log_normaliser: Tensor

    def __init__(
        self,
        latent_dim: int,
        *,
        hidden: PositiveInt = 500,
        layers: PositiveInt = 3,
        lr: PositiveFloat = 1e-3,
        pool: Annotated[int, Field(ge=1, le=16_000_000)] = 1_000_000,
        centres: PositiveInt = 4096,
        width: PositiveFloat = 0.1,
    ) -> None:
        super().__init__(latent_dim, 1, diagonal=True)
        self.network = mlp(latent_dim, 1, hidden, layers, activation=nn.Tanh)
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("effective_samples", torch.zeros(()))  # 0 until `finish`
        self.register_buffer("log_normaliser", torch.zeros(()))  # ln Z
        self.normal = StandardNormal(latent_dim)
        self.lr = lr
        self.pool = pool
        self.centres = centres
        self.width = width

    @property
    def fitted(self) -> bool:
        return bool(self.effective_samples)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"prior_ratio": adam(self.network.parameters(), self.lr)}

    def updates(self, latents: Iterator[Tensor], progress: float) -> Iterator[Update]:
        real = next(latents)
        yield "prior_ratio", self.ratio_terms(real, torch.randn_like(real))

    def ratio_terms(self, latents: Tensor, normals: Tensor) -> dict[str, Tensor]:
        """Return T's loss, the cross-entropy of telling latents from normals.

        Args:
            latents: Latents of images [B, latent_dim], which T learns to score high.
            normals: Samples of N(0, I), [B, latent_dim], which T learns to score low.
        """
        real, fake = (self.log_ratio(samples, dropped=_DROPPED) for samples in (latents, normals))
        return {"cross_entropy": softplus(-real).mean() + softplus(fake).mean()}

    def log_ratio(self, latents: Tensor, *, dropped: float = 0.0) -> Tensor:
        """Return T, [B], of latents [B, latent_dim]. `dropped` is the dropout before T's last layer."""
        hidden = self.network[:-1](latents)
        return self.network[-1](dropout(hidden, dropped) if dropped else hidden).squeeze(1)

    @torch.no_grad()
    def finish(self) -> None:
        """Draw the pool from torch's random generator, and the centres from it."""
        pool = torch.randn(self.pool, self.latent_dim, device=self.means.device)
        log_ratios = torch.cat([self.log_ratio(chunk) for chunk in pool.split(_CHUNK)]).double()
        weights = log_ratios.softmax(dim=0)
        centres = pool[weights.multinomial(self.centres, replacement=True)]
        equal = torch.full((self.centres,), 1.0 / self.centres, dtype=torch.float64)
        self.place(equal, centres, torch.full_like(centres, self.width))
        self.effective_samples.copy_(1.0 / weights.square().sum())
        self.log_normaliser.copy_(log_ratios.logsumexp(dim=0) - math.log(self.pool))

    def log_density(self, latents: Tensor) -> Tensor:
        return self.normal.log_density(latents) + self.log_ratio(latents) - self.log_normaliser

    def diagnostics(self) -> dict[str, float]:
        """Return the effective sample size of the pool."""
        return {"effective_samples": self.effective_samples.item()} if self.fitted else {}
