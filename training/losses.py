"""Losses as pure functions of images [B, C, H, W] in [0, 1] or latents [B, m]. Every term is a scalar tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor


def sum_squared_error(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Return (x̂ − x)², summed over pixels and averaged over the batch: FlexAE's reconstruction loss.

    https://arxiv.org/abs/2006.05838
    """
    return torch.nn.functional.mse_loss(reconstruction, x, reduction="sum") / len(x)


def binary_cross_entropy(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Return −x ln x̂ − (1 − x) ln(1 − x̂), averaged over pixels and batch: MaskAAE's reconstruction loss.

    https://arxiv.org/abs/1912.04564
    """
    return _cross_entropy(reconstruction, x, "mean")


def sum_binary_cross_entropy(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Return −x ln x̂ − (1 − x) ln(1 − x̂), summed over pixels and averaged over the batch.

    This is −ln p(x|z) of a decoder with Bernoulli pixels: https://arxiv.org/abs/1312.6114, appendix C.1.
    """
    return _cross_entropy(reconstruction, x, "sum") / len(x)


def gaussian_nll(reconstruction: Tensor, x: Tensor, log_gamma: Tensor) -> Tensor:
    """Return −ln p(x|z) of a decoder N(x̂, γ² I), summed over pixels and averaged over the batch.

    Per pixel, this is (x − x̂)² / 2γ² + ln γ + ½ ln 2π: https://arxiv.org/abs/1903.05789.

    Args:
        reconstruction: x̂, float [B, C, H, W].
        x: The images, float [B, C, H, W].
        log_gamma: ln γ, a scalar. The loss is least where γ² is the mean squared error.
    """
    pixels = x[0].numel()
    scaled_error = 0.5 * torch.exp(-2.0 * log_gamma) * sum_squared_error(reconstruction, x)
    return scaled_error + pixels * (log_gamma + 0.5 * math.log(2.0 * math.pi))


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(μ, diag σ²) ‖ N(0, I)), summed over dimensions and averaged over the batch.

    Per dimension, this is ½ (μ² + σ² − 1 − ln σ²): https://arxiv.org/abs/1312.6114, appendix B.

    Args:
        mean: μ, float [B, m].
        log_variance: ln σ², float [B, m].
    """
    return 0.5 * (mean.square() + log_variance.expm1() - log_variance).sum(dim=1).mean()


def gaussian_log_density(latents: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return ln N(z; μ, diag σ²), summed over the last dimension.

    Args:
        latents: z, float [..., m].
        mean: μ, of a shape that broadcasts with that of z.
        log_variance: ln σ², likewise.
    """
    scaled_error = (latents - mean).square() * torch.exp(-log_variance)
    return -0.5 * (scaled_error + log_variance + math.log(2.0 * math.pi)).sum(dim=-1)


def mmd(a: Tensor, b: Tensor, kernel: Callable[[Tensor], Tensor], *, unbiased: bool = True) -> Tensor:
    """Return an estimate of the squared maximum mean discrepancy: E k(a, a') + E k(b, b') − 2 E k(a, b).

    https://jmlr.org/papers/v13/gretton12a.html, equations 3 (unbiased) and 5 (biased).

    Args:
        a: Samples, float [N, m], at least two for the unbiased estimate.
        b: Samples of the other distribution, float [M, m], likewise.
        kernel: k, a map from squared distances ‖a − b‖² to the kernel's values.
        unbiased: Whether to leave out the distance of a sample from itself. The unbiased estimate is negative about
            half of the time if both distributions are the same; the biased one is never negative.
    """

    def within(samples: Tensor) -> Tensor:
        similarity = kernel(_squared_distances(samples, samples))
        if not unbiased:
            return similarity.mean()
        return (similarity.sum() - similarity.trace()) / (len(samples) * (len(samples) - 1))

    return within(a) + within(b) - 2.0 * kernel(_squared_distances(a, b)).mean()


def inverse_multiquadric_kernel(squared_distances: Tensor, latent_dim: int) -> Tensor:
    """Return Σ_s C / (C + d²) with C = 2ms, for s = 0.1, 0.2, 0.5, 1, 2, 5, 10: the kernel of the WAE's authors.

    https://arxiv.org/abs/1711.01558, section 4. For two samples of N(0, I) in m dimensions, E d² = 2m.

    Args:
        squared_distances: d², float of any shape.
        latent_dim: m.
    """
    scales = [2.0 * latent_dim * scale for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
    return torch.stack([scale / (scale + squared_distances) for scale in scales]).sum(dim=0)


def gaussian_kernel(squared_distances: Tensor, latent_dim: int) -> Tensor:
    """Return exp(−d² / m²): the kernel of InfoVAE's authors (https://arxiv.org/abs/1706.02262).

    Args:
        squared_distances: d², float of any shape.
        latent_dim: m.
    """
    return torch.exp(-squared_distances / latent_dim**2)


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Return the batch mean of (‖∇C(x̃)‖₂ − 1)², x̃ = fake + β (real − fake), with β ~ U(0, 1) for each sample.

    https://arxiv.org/abs/1704.00028, equation 3.

    Args:
        critic: C, a map from samples [B, ...] to scores whose row b depends on sample b alone.
        real: Samples of the data, float [B, ...].
        fake: Samples of the generator, float [B, ...].

    Returns:
        A scalar that is differentiable with respect to the parameters of the critic.
    """
    mix = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
    between = (fake + mix * (real - fake)).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1.0).square().mean()


def critic_terms(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, penalty: float) -> dict[str, Tensor]:
    """Return the loss of a Wasserstein critic: mean C(fake) − mean C(real), and the weighted gradient penalty.

    https://arxiv.org/abs/1704.00028, equation 3. The critic learns to score `real` above `fake`.

    Args:
        critic: C, a map from samples [B, ...] to scores whose row b depends on sample b alone.
        real: Samples, float [B, ...].
        fake: Samples of the same shape.
        penalty: Weight of the gradient penalty.
    """
    return {
        "wasserstein": critic(fake).mean() - critic(real).mean(),
        "penalty": penalty * gradient_penalty(critic, real, fake),
    }


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distance of every row of `a` from every row of `b`, [N, M]."""
    return (a[:, None] - b[None]).square().sum(dim=2)


def _cross_entropy(reconstruction: Tensor, x: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
    """Return the cross-entropy of pixels; NaN if the reconstruction holds NaN.

    On NaN, torch's own function raises RuntimeError, and on CUDA the device is unusable afterwards. With a loss of
    NaN, the trainer reports the divergence.
    """
    finite = reconstruction.nan_to_num(nan=0.5)
    loss = torch.nn.functional.binary_cross_entropy(finite, x, reduction=reduction)
    return loss + 0.0 * reconstruction.mean()
