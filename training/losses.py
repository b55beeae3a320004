"""Losses as pure functions. B images [B, C, H, W] in [0, 1]; latents [B, m]; every result is a scalar."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sum_squared_error(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Σ over pixels of (x̂ − x)², batch mean: the reconstruction term of FlexAE (2006.05838)."""
    return torch.nn.functional.mse_loss(reconstruction, x, reduction="sum") / len(x)


def binary_cross_entropy(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Mean over batch and pixels of −x ln x̂ − (1 − x) ln(1 − x̂), x̂ in [0, 1]: MaskAAE's term (1912.04564).

    NaN gives NaN, by which a trainer knows that it diverged; torch's own raises RuntimeError, on CUDA for good.
    """
    finite = reconstruction.nan_to_num(nan=0.5)
    return torch.nn.functional.binary_cross_entropy(finite, x) + 0.0 * reconstruction.mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """mean_B (‖∇C(x̃)‖₂ − 1)², x̃ = fake + β·(real − fake), β ~ U(0, 1) one a sample (1704.00028, eq. 3).

    The norm runs over all dimensions but the batch's; the graph is kept, so the critic learns from it.
    """
    mix = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    between = (fake + mix * (real - fake)).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1.0).square().mean()
