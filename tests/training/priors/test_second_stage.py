from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from training.optimizers import descend
from training.priors.second_stage import SecondStage
from training.priors.wrappers import Whitened


def ring(count: int) -> Tensor:
    """Latents near a circle with radius 3."""
    angle = 2.0 * math.pi * torch.rand(count)
    return 3.0 * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(count, 2)


def batches(latents: Tensor) -> Iterator[Tensor]:
    while True:
        yield latents[torch.randint(0, len(latents), (128,))]


def test_the_second_stage_learns_what_a_gaussian_cannot():
    torch.manual_seed(0)
    latents = ring(4000)
    stage = SecondStage(2, hidden=64, lr=3e-3)
    prior = Whitened(stage)
    prior.start(latents, latents[:10])
    optimizers = prior.optimizers()
    for _ in range(1000):
        for name, terms in prior.updates(batches(latents), 0.0):
            descend(optimizers[name], terms)
    radius = prior(prior.noise(4000)).norm(dim=1)
    # The radius of the Gaussian with the same covariance is 2.66 ± 1.39.
    assert abs(radius.mean() - 3.0) < 0.25
    assert radius.std() < 0.8
    assert prior.diagnostics()["gamma"] < 0.4


def test_the_first_columns_are_u_and_the_others_the_noise_of_the_latent():
    torch.manual_seed(0)
    stage = SecondStage(3, hidden=8)
    noise = torch.randn(20, 6)
    moved = noise.clone()
    moved[:, 3:] += 1.0
    gamma = stage.log_gamma.exp().item()
    torch.testing.assert_close(stage(moved) - stage(noise), torch.full((20, 3), gamma))
    torch.testing.assert_close(stage(noise), stage.decoder(noise[:, :3]) + gamma * noise[:, 3:])
