"""The base class of all priors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from training.optimizers import Update

Role = Literal["gaussian", "choice"]
Report = Callable[[Mapping[str, float]], object]  # called with figures to show, by name


def ignore(figures: Mapping[str, float]) -> None:
    """Show no figures."""


class Prior(nn.Module):
    """A distribution of latents, sampled by a deterministic function of noise.

    `forward` maps noise [B, noise_dim], every entry ~ N(0, 1), to latents [B, latent_dim]. Export turns it into a
    graph, so it uses only operations that give the same result on every ONNX runtime.

    A prior that is trained together with its auto-encoder needs nothing else. A prior that is fitted to the latents
    of a finished auto-encoder does that in `start`, may train further by gradient steps in `updates`, and completes
    the fit in `finish`.

    If the constructor takes `latent_dim` and otherwise only keyword arguments with defaults, the prior can be fitted
    on any auto-encoder: the name of its file is then a value of the recipe's key `posthoc`, and the keyword
    arguments are recipe keys `posthoc_…`, which the `Args:` section of the class's docstring explains.

    Args:
        latent_dim: Dimensions m of a latent.
        roles: What each column of the noise does: "gaussian" columns move a latent, and temperature and interpolation
            act on them; a "choice" column selects a component, so its values are never mixed or scaled.
    """

    def __init__(self, latent_dim: int, roles: Sequence[Role]) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.roles = list(roles)

    @property
    def noise_dim(self) -> int:
        """Columns of the noise."""
        return len(self.roles)

    @property
    def fitted(self) -> bool:
        """Whether the prior can be sampled; False if it needs `start`, or `finish`, first."""
        return True

    @property
    def least_latents(self) -> int:
        """The fewest latents that `start` can fit the prior to."""
        return 1

    def noise(self, count: int) -> Tensor:
        """Draw noise [count, noise_dim] from torch's random generator, on the prior's device."""
        device = next(chain(self.parameters(), self.buffers())).device
        return torch.randn(count, self.noise_dim, device=device)

    def start(self, latents: Tensor, held_out: Tensor, report: Report = ignore) -> None:
        """Prepare the prior for the finished auto-encoder, once, before any `updates`.

        Args:
            latents: Latents of the training images, [N, latent_dim].
            held_out: Latents of other images, [M, latent_dim], at least one. They serve to choose settings or to stop
                early, and are not fitted to.
            report: Called with figures after each part of a long fit.
        """

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return a fresh optimiser for each name that `updates` yields."""
        return {}

    def updates(self, latents: Iterator[Tensor], progress: float) -> Iterator[Update]:
        """Yield the updates of one further step of the prior alone.

        Args:
            latents: Endless batches [B, latent_dim] of the finished auto-encoder.
            progress: How much of these steps is done, from 0 to 1.
        """
        yield from ()

    def finish(self) -> None:
        """Complete the prior after the last of its updates."""

    def diagnostics(self) -> dict[str, float]:
        """Return figures of the fit, such as the number of components, by name."""
        return {}

    def log_density(self, latents: Tensor) -> Tensor | None:
        """Return ln p, [B], of latents [B, latent_dim]; None if the prior has no density that can be computed."""
        return None
