"""Priors that first choose one of K Gaussians and then sample it: the graph that several priors share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from training.priors.base import Prior, Role

_MAX_BOUND = 7.0  # noise stays within ±6.4, so −7 is always below it and 7 never


class Components(Prior):
    """A weighted choice of K Gaussians, with full or diagonal covariances.

    The first noise column chooses the component: its number k is the number of bounds Φ⁻¹(w₁ + … + w_j) below the
    column's value, so component k is chosen with probability w_k. Comparisons with constants give the same component
    on every ONNX runtime. The other columns n give the latent μ_k + L_k·n, where L_k is the Cholesky factor of the
    component's covariance, or the vector of its standard deviations. Before `place`, every component is N(0, I).

    Args:
        latent_dim: Dimensions m of a latent.
        components: Number of components K; `place` can change it, and so can a state that is loaded.
        diagonal: Whether covariances are diagonal.
    """

    weights: Tensor
    bounds: Tensor
    means: Tensor
    scales: Tensor

    def __init__(self, latent_dim: int, components: int, *, diagonal: bool) -> None:
        gaussian: list[Role] = ["gaussian"] * latent_dim
        super().__init__(latent_dim, ["choice", *gaussian])
        scale = torch.ones(latent_dim) if diagonal else torch.eye(latent_dim)
        weights = torch.full((components,), 1.0 / components, dtype=torch.float64)
        self.register_buffer("weights", weights.float())
        self.register_buffer("bounds", bounds(weights))
        self.register_buffer("means", torch.zeros(components, latent_dim))
        self.register_buffer("scales", scale.expand(components, *scale.shape).clone())

    def forward(self, noise: Tensor) -> Tensor:
        component = (noise[:, :1] > self.bounds).sum(dim=1)
        means, scales, normal = self.means[component], self.scales[component], noise[:, 1:]
        if scales.dim() == 2:
            return means + scales * normal
        return means + torch.matmul(scales, normal[:, :, None]).squeeze(-1)

    def place(self, weights: Tensor, means: Tensor, scales: Tensor) -> None:
        """Set all components.

        Args:
            weights: w, float64 [K], which sum to 1.
            means: μ, [K, m].
            scales: L, the Cholesky factors [K, m, m], or the standard deviations [K, m].
        """
        values = {"weights": weights, "bounds": bounds(weights), "means": means, "scales": scales}
        for name, value in values.items():
            setattr(self, name, value.to(self.means))

    def log_density(self, latents: Tensor) -> Tensor:
        """Return ln p, [B], of latents [B, latent_dim]: −∞ where a component's standard deviation is 0."""
        terms = []
        for weight, mean, scale in zip(self.weights, self.means, self.scales, strict=True):
            centred = (latents - mean).T
            if scale.dim() == 1:
                normal, volume = centred / scale[:, None], scale.log().sum()
            else:
                normal = torch.linalg.solve_triangular(scale, centred, upper=False)
                volume = scale.diagonal().log().sum()
            terms.append(weight.log() - volume - 0.5 * normal.square().sum(dim=0))
        return torch.stack(terms).logsumexp(dim=0) - 0.5 * self.latent_dim * math.log(2.0 * math.pi)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        """Load a state that can have another number of components."""
        for name in ("weights", "bounds", "means", "scales"):
            if f"{prefix}{name}" in state_dict:
                setattr(self, name, torch.empty_like(state_dict[f"{prefix}{name}"], device=self.means.device))
        super()._load_from_state_dict(state_dict, prefix, *others)


def bounds(weights: Tensor) -> Tensor:
    """Return the K − 1 bounds, float32, between components: quantiles of N(0, 1) at the cumulative weights [K]."""
    cumulative = weights.double().cumsum(dim=0)[:-1] / weights.double().sum()
    return torch.from_numpy(norm.ppf(cumulative.cpu()).clip(-_MAX_BOUND, _MAX_BOUND).astype(np.float32))
