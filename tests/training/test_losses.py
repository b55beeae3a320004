from __future__ import annotations

import pytest
import torch

from training.losses import binary_cross_entropy, gradient_penalty, sum_squared_error


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


def test_cross_entropy_is_torchs_own_to_the_bit_and_passes_nan_on():
    x, weights = torch.rand(4, 1, 3, 3), torch.randn(4, 1, 3, 3)
    found = []
    for loss in (binary_cross_entropy, torch.nn.functional.binary_cross_entropy):
        logits = weights.clone().requires_grad_()
        value = loss(torch.sigmoid(logits), x)
        value.backward()
        found.append((value, logits.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    broken = torch.full((4, 1, 3, 3), torch.nan)
    assert binary_cross_entropy(broken, x).isnan()
