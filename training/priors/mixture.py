"""A mixture of Gaussians, fitted to the latents of a finished auto-encoder."""

from __future__ import annotations

import warnings
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import PositiveInt
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from training.priors.base import Report, ignore
from training.priors.components import Components

# The numbers of components that "auto" tries, in this order.
CANDIDATES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 400, 800)
_TRIAL: Final = 15  # iterations of EM after which numbers of components are compared
_ITERATIONS: Final = 100  # the most iterations of EM
Rows = npt.NDArray[np.float64]


class Mixture(Components):
    """A mixture of Gaussians with full covariances, fitted by expectation-maximisation.

    RAE uses 10 components (https://arxiv.org/abs/1903.12436). On its own, the mixture wants latents whose variances
    are near 1, since EM adds a small constant to each.

    Args:
        latent_dim: Dimensions m of a latent.
        components: Number of Gaussians, or auto: then it grows for as long as held-out latents become likelier. More
            match the latents more closely; with too many, a Gaussian describes single training images.
    """

    is_fitted: Tensor

    def __init__(self, latent_dim: int, *, components: PositiveInt | Literal["auto"] = "auto") -> None:
        super().__init__(latent_dim, 1 if components == "auto" else components, diagonal=False)
        self.components = components
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))

    @property
    def fitted(self) -> bool:
        return bool(self.is_fitted)

    @property
    def least_latents(self) -> int:
        return 1 if self.components == "auto" else self.components

    @torch.no_grad()
    def start(self, latents: Tensor, held_out: Tensor, report: Report = ignore) -> None:
        """Fit the mixture to latents [N, latent_dim]. EM starts from k-means, seeded by torch's random generator."""
        rows, others = (tensor.double().cpu().numpy() for tensor in (latents, held_out))
        seed = int(torch.randint(2**31 - 1, ()))
        if self.components == "auto":
            fit = _likeliest(rows, others, seed, report)
        else:
            fit = _fit(GaussianMixture(self.components, random_state=seed, max_iter=_ITERATIONS), rows)
        factors = np.linalg.cholesky(fit.covariances_)
        self.place(*(torch.from_numpy(array) for array in (fit.weights_, fit.means_, factors)))
        self.is_fitted.fill_(True)

    def diagnostics(self) -> dict[str, float]:
        """Return the number of components."""
        return {"components": len(self.weights)}


def _likeliest(rows: Rows, held_out: Rows, seed: int, report: Report) -> GaussianMixture:
    """Return the mixture with the first number of components after which held-out latents become less likely."""
    best, greatest = None, -np.inf
    for components in CANDIDATES:
        if components > len(rows):
            break
        fit = _fit(GaussianMixture(components, random_state=seed, max_iter=_TRIAL, warm_start=True), rows)
        likelihood = float(fit.score(held_out))
        report({"components": components, "held_out": likelihood})
        if best is not None and likelihood <= greatest:
            break
        best, greatest = fit, likelihood
    assert best is not None
    return _fit(best.set_params(max_iter=_ITERATIONS), rows)


def _fit(mixture: GaussianMixture, rows: Rows) -> GaussianMixture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after so many iterations, the likelihood hardly grows
        return mixture.fit(rows)
