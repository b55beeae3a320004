from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.optimizers import descend
from training.priors.iop import IOP


class Tilt(nn.Module):
    """T(z) = b·z₀, with which e^T N(z; 0, I) is N((b, 0, …), I)."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, z: Tensor) -> Tensor:
        return self.slope * z[:, :1]


def tilted(slope: float, **settings: float) -> IOP:
    prior = IOP(3, pool=100_000, **settings)
    prior.network = nn.Sequential(nn.Identity(), Tilt(slope))
    prior.finish()
    return prior


def test_samples_are_normals_in_proportion_to_the_ratio():
    torch.manual_seed(0)
    prior = tilted(1.5)
    samples = prior(prior.noise(20_000))
    torch.testing.assert_close(samples.mean(dim=0), torch.tensor([1.5, 0.0, 0.0]), atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(samples.T), torch.eye(3), atol=0.08, rtol=0)


def test_the_density_is_that_of_the_tilted_normal():
    torch.manual_seed(0)
    prior, points = tilted(1.0), torch.randn(100, 3)
    exact = torch.distributions.Normal(torch.tensor([1.0, 0.0, 0.0]), 1.0).log_prob(points).sum(dim=1)
    torch.testing.assert_close(prior.log_density(points), exact, atol=0.02, rtol=0)
    assert torch.equal(IOP(3).log_density(points), IOP(3).normal.log_density(points))


def test_the_effective_sample_size_is_that_of_the_pool():
    torch.manual_seed(0)
    assert IOP(3).diagnostics() == {}
    assert tilted(0.0).diagnostics()["effective_samples"] == pytest.approx(100_000)
    # For a Gaussian ratio, the expected share is (E e^T)² / E e^2T = e^(−b²).
    assert tilted(1.0).diagnostics()["effective_samples"] == pytest.approx(100_000 * 0.3679, rel=0.05)


def test_a_sample_is_a_centre_and_noise_of_the_given_width():
    torch.manual_seed(0)
    prior = tilted(1.0, centres=50, width=1e-6)
    exact = prior(prior.noise(500))
    assert torch.cdist(exact, prior.means).amin(dim=1).max() < 1e-2
    wide = tilted(1.0, centres=1, width=0.5)
    torch.testing.assert_close(wide(wide.noise(20_000)).std(dim=0), torch.full((3,), 0.5), atol=0.02, rtol=0)


def test_the_network_learns_the_log_ratio():
    """Of N((1, 0), I) to N(0, I), it is z₀ − ½."""
    torch.manual_seed(0)
    prior = IOP(2, hidden=32, layers=1, lr=1e-2)
    assert torch.equal(prior.log_ratio(torch.randn(5, 2)), torch.zeros(5))
    optimizers = prior.optimizers()
    real = (torch.randn(512, 2) + torch.tensor([1.0, 0.0]) for _ in range(10_000))
    for _ in range(300):
        for name, terms in prior.updates(real, 0.0):
            descend(optimizers[name], terms)
    points = torch.randn(200, 2) + torch.tensor([0.5, 0.0])
    error = prior.log_ratio(points) - (points[:, 0] - 0.5)
    assert error.square().mean().sqrt() < 0.25
    assert prior.log_ratio(next(real)).mean() > prior.log_ratio(torch.randn(512, 2)).mean()
