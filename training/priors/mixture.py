"""A mixture of Gaussians, fitted to the latents of a finished auto-encoder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from pydantic import PositiveInt
from scipy.stats import norm
from sklearn.mixture import GaussianMixture
from torch import Tensor

from rae_serve.errors import InvalidInput
from training.priors.base import Prior, Report, Role, ignore

_MAX_BOUND = 7.0  # noise stays within ±6.4, so −7 is always below it and 7 never


class Mixture(Prior):
    """A mixture of Gaussians with full covariances, fitted by expectation-maximisation.

    RAE uses 10 components (https://arxiv.org/abs/1903.12436). The first noise column chooses the component: its
    number k is the number of bounds Φ⁻¹(w₁ + … + w_j) below the column's value, so component k is chosen with
    probability w_k. Comparisons with constants give the same component on every ONNX runtime. The other columns n
    give the latent μ_k + L_k·n, where L_k is the Cholesky factor of the component's covariance. Before the fit, every
    component is N(0, I).

    Args:
        latent_dim: Dimensions m of a latent.
        components: Number of components. More match the latents more closely; with too many, a component describes
            single training images.
    """

    bounds: Tensor
    means: Tensor
    factors: Tensor
    is_fitted: Tensor

    def __init__(self, latent_dim: int, *, components: PositiveInt = 10) -> None:
        gaussian: list[Role] = ["gaussian"] * latent_dim
        super().__init__(latent_dim, ["choice", *gaussian])
        self.components = components
        self.register_buffer("bounds", _bounds(np.full(components, 1.0 / components)))
        self.register_buffer("means", torch.zeros(components, latent_dim))
        self.register_buffer("factors", torch.eye(latent_dim).repeat(components, 1, 1))
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))

    def forward(self, noise: Tensor) -> Tensor:
        component = (noise[:, :1] > self.bounds).sum(dim=1)
        moved = torch.matmul(self.factors[component], noise[:, 1:, None]).squeeze(-1)
        return self.means[component] + moved

    @property
    def fitted(self) -> bool:
        return bool(self.is_fitted)

    @torch.no_grad()
    def start(self, latents: Tensor, held_out: Tensor, report: Report = ignore) -> None:
        """Fit the mixture to latents [N, latent_dim]. EM starts from k-means, seeded by torch's random generator.

        Raises:
            InvalidInput: There are fewer latents than components.
        """
        if len(latents) < self.components:
            raise InvalidInput("components", f"must be at most {len(latents)}, the number of images")
        rows = latents.double().cpu().numpy()
        # EM adds a constant to every variance. On standardised latents, every variance is much larger than it.
        centre, spread = rows.mean(axis=0), rows.std(axis=0).clip(min=1e-6)
        fit = GaussianMixture(self.components, random_state=int(torch.randint(2**31 - 1, ())))
        fit.fit((rows - centre) / spread)
        self.bounds.copy_(_bounds(fit.weights_))
        self.means.copy_(torch.from_numpy(centre + spread * fit.means_))
        self.factors.copy_(torch.from_numpy(spread[:, None] * np.linalg.cholesky(fit.covariances_)))
        self.is_fitted.fill_(True)


def _bounds(weights: npt.NDArray[np.float64]) -> Tensor:
    """Return the K − 1 bounds, float32, between the components: quantiles of N(0, 1) at the cumulative weights."""
    cumulative = np.cumsum(weights, dtype=np.float64)[:-1] / np.sum(weights, dtype=np.float64)
    return torch.from_numpy(norm.ppf(cumulative).clip(-_MAX_BOUND, _MAX_BOUND).astype(np.float32))
