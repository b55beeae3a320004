"""An optimiser that torch lacks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class TensorFlowRMSprop(torch.optim.Optimizer):
    """RMSProp as in TensorFlow 1: s ← ρ s + (1 − ρ) g², θ ← θ − lr · g / √(s + ε), with s = 1 at the start.

    torch's RMSprop starts with s = 0 and adds ε outside the root, so its first steps are many times longer.

    Args:
        parameters: θ, the tensors to optimise.
        lr: The learning rate.
        decay: ρ, the part of the mean square s that a step keeps.
        eps: ε, which bounds the step where s is near 0.
        weight_decay: Before each step, weights (not biases) shrink by the factor 1 − lr · weight_decay, apart from
            the gradient, as in AdamW (https://arxiv.org/abs/1711.05101).
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
