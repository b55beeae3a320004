from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import distributions

from training.losses import (
    binary_cross_entropy,
    gaussian_kernel,
    gaussian_kl,
    gaussian_log_density,
    gaussian_nll,
    gradient_penalty,
    inverse_multiquadric_kernel,
    mmd,
    sum_binary_cross_entropy,
    sum_squared_error,
)


def test_sum_squared_error_sums_pixels_and_averages_images():
    x = torch.zeros(2, 1, 2, 2)
    reconstruction = torch.stack([torch.full((1, 2, 2), 0.5), torch.zeros(1, 2, 2)])
    assert sum_squared_error(reconstruction, x).item() == pytest.approx((4 * 0.25 + 0) / 2)


@pytest.mark.parametrize("shape", [(16, 3), (16, 1, 4, 4)])
def test_gradient_penalty_of_a_linear_critic_is_known(shape):
    weight = torch.randn(shape[1:])
    penalty = gradient_penalty(lambda z: (z * weight).flatten(1).sum(1), torch.randn(shape), torch.randn(shape))
    assert penalty.item() == pytest.approx((weight.norm().item() - 1) ** 2, rel=1e-5)


def test_gradient_penalty_mixes_once_a_sample_and_keeps_the_graph():
    seen = []
    scale = torch.ones(1, requires_grad=True)

    def critic(z: torch.Tensor) -> torch.Tensor:
        seen.append(z.detach())
        return (scale * z.square()).sum(1)

    real, fake = torch.ones(8, 5), torch.zeros(8, 5)
    gradient_penalty(critic, real, fake).backward()
    (mixed,) = seen
    assert (mixed == mixed[:, :1]).all()  # on the line between a sample's two ends
    assert len(mixed[:, 0].unique()) == 8
    assert 0 <= mixed.min() <= mixed.max() <= 1
    assert scale.grad is not None


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_is_torchs_own_to_the_bit(reduction):
    def torchs(reconstruction: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        total = torch.nn.functional.binary_cross_entropy(reconstruction, x, reduction=reduction)
        return total if reduction == "mean" else total / len(x)

    ours = binary_cross_entropy if reduction == "mean" else sum_binary_cross_entropy
    x, weights = torch.rand(4, 1, 3, 3), torch.randn(4, 1, 3, 3)
    values, gradients = [], []
    for loss in (ours, torchs):
        logits = weights.clone().requires_grad_()
        values.append(loss(torch.sigmoid(logits), x))
        values[-1].backward()
        gradients.append(logits.grad)
    assert torch.equal(*values)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("loss", [binary_cross_entropy, sum_binary_cross_entropy])
def test_cross_entropy_of_nan_is_nan(loss):
    broken = torch.rand(4, 1, 3, 3)
    broken[2, 0, 1, 1] = torch.nan
    assert loss(broken, torch.rand(4, 1, 3, 3)).isnan()


def test_summed_cross_entropy_is_the_likelihood_of_bernoulli_pixels():
    x, reconstruction = torch.rand(4, 1, 3, 3).round(), torch.rand(4, 1, 3, 3)
    expected = -distributions.Bernoulli(reconstruction).log_prob(x).flatten(1).sum(1).mean()
    torch.testing.assert_close(sum_binary_cross_entropy(reconstruction, x), expected)


@pytest.mark.parametrize("log_gamma", [-3.0, 0.0, 1.5])
def test_gaussian_nll_is_the_likelihood_of_a_normal_distribution(log_gamma):
    x, reconstruction, scale = torch.rand(4, 3, 5, 2), torch.rand(4, 3, 5, 2), torch.tensor(log_gamma)
    expected = -distributions.Normal(reconstruction, scale.exp()).log_prob(x).flatten(1).sum(1).mean()
    torch.testing.assert_close(gaussian_nll(reconstruction, x, scale), expected)


def test_gaussian_nll_is_least_where_gamma_is_the_error():
    x, reconstruction = torch.rand(4, 3, 5, 2), torch.rand(4, 3, 5, 2, requires_grad=True)
    log_gamma = (reconstruction - x).square().mean().sqrt().log().detach().requires_grad_()
    gaussian_nll(reconstruction, x, log_gamma).backward()
    assert log_gamma.grad is not None
    assert abs(log_gamma.grad.item()) < 1e-3
    assert reconstruction.grad is not None


def test_gaussian_kl_is_that_of_torchs_distributions():
    mean, log_variance = torch.randn(16, 5), torch.randn(16, 5)
    posterior = distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = distributions.kl_divergence(posterior, distributions.Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)
    assert gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0.0


KERNELS = [partial(inverse_multiquadric_kernel, latent_dim=3), partial(gaussian_kernel, latent_dim=3)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("unbiased", [True, False])
def test_mmd_is_the_mean_over_all_pairs(kernel, unbiased):
    a, b = torch.randn(5, 3), 1.0 + torch.randn(7, 3)

    def mean(left: torch.Tensor, right: torch.Tensor, same: bool) -> float:
        pairs = [(i, j) for i in range(len(left)) for j in range(len(right)) if not (same and unbiased and i == j)]
        return sum(kernel((left[i] - right[j]).square().sum()).item() for i, j in pairs) / len(pairs)

    expected = mean(a, a, True) + mean(b, b, True) - 2.0 * mean(a, b, False)
    assert mmd(a, b, kernel, unbiased=unbiased).item() == pytest.approx(expected, rel=1e-4)


def test_mmd_is_that_of_pythae():
    from pythae.models import WAE_MMD

    config = SimpleNamespace(reg_weight=1.0, latent_dim=3, kernel_bandwidth=1.0)
    other = SimpleNamespace(
        model_config=config,
        kernel_choice="imq",
        scales=[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0],
        reconstruction_loss_scale=1.0,
    )
    other.imq_kernel = partial(WAE_MMD.imq_kernel, other)
    a, b, x = torch.randn(16, 3), torch.randn(16, 3), torch.zeros(16, 1)
    _, _, expected = WAE_MMD.loss_function(other, x, x, a, b)
    torch.testing.assert_close(mmd(a, b, KERNELS[0]), expected)


def test_biased_mmd_of_the_same_samples_is_zero_and_has_a_gradient_elsewhere():
    a = torch.randn(16, 3, requires_grad=True)
    assert mmd(a, a, KERNELS[0], unbiased=False).item() == pytest.approx(0.0, abs=1e-5)
    mmd(a, torch.randn(16, 3), KERNELS[0]).backward()
    assert torch.isfinite(a.grad).all()
    assert a.grad.abs().sum() > 0


def test_gaussian_log_density_is_that_of_torch_and_broadcasts():
    latents, means, log_variances = torch.randn(5, 1, 3), torch.randn(4, 3), torch.randn(4, 3)
    expected = distributions.Independent(distributions.Normal(means, (0.5 * log_variances).exp()), 1)
    torch.testing.assert_close(gaussian_log_density(latents, means, log_variances), expected.log_prob(latents))
