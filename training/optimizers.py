"""Optimiser steps: what a step minimises, how it is taken, and an optimiser that torch lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from training.distributed import ALONE, World

# The name of the optimiser that steps, and the terms whose sum it minimises.
Update = tuple[str, Mapping[str, Tensor]]


class TensorFlowRMSprop(torch.optim.Optimizer):
    """RMSProp as in TensorFlow 1: s ← ρ s + (1 − ρ) g², θ ← θ − lr · g / √(s + ε), with s = 1 at the start.

    torch's RMSprop starts with s = 0 and adds ε outside the root, so its first steps are many times longer.

    Args:
        parameters: θ, the tensors to optimise.
        lr: The learning rate.
        decay: ρ, the part of the mean square s that a step keeps.
        eps: ε, which bounds the step where s is near 0.
        weight_decay: Decoupled weight decay as in AdamW (https://arxiv.org/abs/1711.05101): before each step, weights
            (not biases) are multiplied by 1 − lr · weight_decay.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        decay: float = 0.9,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "decay": decay, "eps": eps})
        self.weight_decay = weight_decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # takes no closure
        """Update the parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["square"] = torch.ones_like(parameter)
            if self.weight_decay:
                matrices = [parameter for parameter in parameters if parameter.dim() > 1]
                torch._foreach_mul_(matrices, 1.0 - group["lr"] * self.weight_decay)
            squares = [self.state[parameter]["square"] for parameter in parameters]
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - group["decay"])
            roots = torch._foreach_add(squares, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(parameters, gradients, roots, -group["lr"])


def adam(
    parameters: Iterable[Tensor],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> torch.optim.Adam:
    """Return torch's Adam in its fused form: one kernel updates all parameters.

    Args:
        parameters: The tensors to optimise.
        lr: The learning rate.
        betas: Decays of the averages of the gradients and of their squares.
        eps: Added to the root of the squares' average.
        weight_decay: Decoupled weight decay (https://arxiv.org/abs/1711.05101): before each step, parameters are
            multiplied by 1 − lr · weight_decay.
    """
    return torch.optim.Adam(
        parameters,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        decoupled_weight_decay=weight_decay > 0.0,
        fused=True,
    )


def descend(optimizer: torch.optim.Optimizer, terms: Mapping[str, Tensor], world: World = ALONE) -> None:
    """Take one optimiser step down the sum of the terms, with gradients for the optimiser's own parameters only.

    Args:
        optimizer: The optimiser.
        terms: The terms of the loss, by name, of this process's part of the batch.
        world: The processes over which gradients are averaged.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # Fused Adam needs gradients in the memory layout of their parameters, which torch.autograd.grad does not promise.
    torch.stack(list(terms.values())).sum().backward(inputs=parameters)
    world.average([parameter.grad for parameter in parameters if parameter.grad is not None])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def set_rates(optimizers: Mapping[str, torch.optim.Optimizer], rates: Mapping[str, float]) -> None:
    """Give each optimiser its learning rate."""
    for name, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = rates[name]
