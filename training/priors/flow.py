"""A normalising flow, trained by maximum likelihood on the latents of a finished auto-encoder."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from training.couplings import Couplings
from training.optimizers import Update, adam
from training.priors.base import Prior, Report, ignore
from training.priors.standard_normal import StandardNormal

_SCORED_EVERY: Final = 50  # updates between two scores on held-out latents


class Flow(Prior):
    """A stack of coupling layers that maps N(0, I) to the latents, with a known density.

    https://arxiv.org/abs/1605.08803, equations 2 and 3. The updates maximise ln p of the latents. The prior samples
    and scores with the weights that made held-out latents likeliest, which at first are those of N(0, I): on few
    images, a flow soon memorises the training latents.

    Where the sources are silent: the optimiser is Adam with decoupled weight decay and a constant learning rate.

    Args:
        latent_dim: Dimensions m of a latent.
        layers: Number of coupling layers.
        hidden: Width of the hidden layers of each coupling's network. Wider ones memorise sooner.
        lr: Learning rate of Adam.
        weight_decay: Adam's weight decay: an update takes the part lr · weight_decay from every weight. Higher values
            memorise later, and with too high ones the flow stays near N(0, I).
    """

    held_out: Tensor
    steps: Tensor
    best_step: Tensor
    best_score: Tensor

    def __init__(
        self,
        latent_dim: int,
        *,
        layers: Annotated[int, Field(ge=2)] = 8,
        hidden: PositiveInt = 128,
        lr: PositiveFloat = 5e-4,
        weight_decay: NonNegativeFloat = 1.0,
    ) -> None:
        super().__init__(latent_dim, ["gaussian"] * latent_dim)
        self.couplings = Couplings(latent_dim, layers, hidden)
        self.best = copy.deepcopy(self.couplings).requires_grad_(False)
        self.normal = StandardNormal(latent_dim)
        self.lr = lr
        self.weight_decay = weight_decay
        # All of a fit's state is saved, so that a stopped and resumed fit equals one that never stopped.
        self.register_buffer("held_out", torch.zeros(0, latent_dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("best_step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("best_score", torch.zeros(()))

    def forward(self, noise: Tensor) -> Tensor:
        latents, _ = self.best(noise)
        return latents

    def log_density(self, latents: Tensor) -> Tensor:
        return self._log_density(self.best, latents)

    @torch.no_grad()
    def start(self, latents: Tensor, held_out: Tensor, report: Report = ignore) -> None:
        self.held_out = held_out.clone()
        self.best_score.copy_(self.log_density(held_out).mean())

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"prior_flow": adam(self.couplings.parameters(), self.lr, weight_decay=self.weight_decay)}

    def updates(self, latents: Iterator[Tensor], progress: float) -> Iterator[Update]:
        yield "prior_flow", {"nll": -self._log_density(self.couplings, next(latents)).mean()}
        self.steps += 1
        if self.steps % _SCORED_EVERY == 0:
            self._keep_if_best()

    def finish(self) -> None:
        self._keep_if_best()
        self.held_out = self.held_out[:0]

    def diagnostics(self) -> dict[str, float]:
        """Return the mean ln p of the held-out latents, and after how many updates it was greatest."""
        return {"held_out": self.best_score.item(), "best_step": int(self.best_step)}

    def _log_density(self, couplings: Couplings, latents: Tensor) -> Tensor:
        noise, log_det = couplings.inverse(latents)
        return self.normal.log_density(noise) + log_det

    @torch.no_grad()
    def _keep_if_best(self) -> None:
        if not len(self.held_out):
            return
        score = self._log_density(self.couplings, self.held_out).mean()
        if score > self.best_score:
            self.best.load_state_dict(self.couplings.state_dict())
            self.best_score.copy_(score)
            self.best_step.copy_(self.steps)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        """Load a state that can have another number of held-out latents."""
        if f"{prefix}held_out" in state_dict:
            self.held_out = torch.empty_like(state_dict[f"{prefix}held_out"], device=self.held_out.device)
        super()._load_from_state_dict(state_dict, prefix, *others)
