from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from training.optimizers import descend
from training.priors.flow import Flow
from training.priors.standard_normal import StandardNormal


def ring(count: int) -> Tensor:
    """Latents near a circle, with mean 0 and covariance I."""
    angle = 2.0 * math.pi * torch.rand(count)
    return math.sqrt(2.0) * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(count, 2)


def batches(latents: Tensor) -> Iterator[Tensor]:
    while True:
        yield latents[torch.randint(0, len(latents), (128,))]


def train(flow: Flow, optimizers: dict[str, torch.optim.Optimizer], latents: Tensor, steps: int) -> None:
    for _ in range(steps):
        for name, terms in flow.updates(batches(latents), 0.0):
            descend(optimizers[name], terms)


def test_a_flow_learns_what_a_gaussian_cannot():
    flow, held_out = Flow(2, hidden=32, lr=5e-3, weight_decay=0.0), ring(500)
    flow.start(ring(10), held_out)
    gaussian = StandardNormal(2).log_density(held_out).mean().item()
    assert flow.diagnostics() == {"held_out": pytest.approx(gaussian), "best_step": 0}
    train(flow, flow.optimizers(), ring(4000), steps=300)
    flow.finish()
    found = flow.diagnostics()
    assert found["held_out"] > gaussian + 0.5
    assert found["held_out"] == pytest.approx(flow.log_density(held_out).mean().item(), abs=1e-4)
    radius = flow(flow.noise(4000)).norm(dim=1)
    assert radius.std() < 0.5  # that of N(0, I) is 0.66


def test_a_flow_that_memorises_keeps_what_made_held_out_latents_likeliest():
    flow, latents, held_out = Flow(2, hidden=64, lr=1e-2, weight_decay=0.0), ring(10), ring(200)
    flow.start(latents, held_out)
    train(flow, flow.optimizers(), latents, steps=200)
    flow.finish()
    noise, log_det = flow.couplings.inverse(held_out)
    memorised = (flow.normal.log_density(noise) + log_det).mean()
    assert flow.log_density(held_out).mean() > memorised + 1.0
    assert flow.log_density(held_out).mean() >= flow.normal.log_density(held_out).mean() - 1e-4
    assert flow.diagnostics()["best_step"] < 200


def test_the_density_is_that_of_the_samples():
    flow = Flow(3, hidden=16)
    for parameter in flow.best.parameters():
        nn.init.normal_(parameter, std=0.3)
    noise = flow.noise(5)
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda z: flow(z[None])[0], row) for row in noise])
    expected = StandardNormal(3).log_density(noise) - torch.linalg.slogdet(jacobians).logabsdet
    torch.testing.assert_close(flow.log_density(flow(noise)), expected, atol=1e-4, rtol=1e-4)


def test_a_state_holds_all_that_a_fit_goes_on_with():
    first, second, latents = Flow(2, hidden=8), Flow(2, hidden=8), ring(100)
    first.start(latents, ring(20))
    optimizers = first.optimizers()
    train(first, optimizers, latents, steps=70)
    second.load_state_dict(safetensors.torch.load(safetensors.torch.save(first.state_dict())))
    copies = second.optimizers()
    for name, optimizer in copies.items():
        optimizer.load_state_dict(copy.deepcopy(optimizers[name].state_dict()))
    for flow, own in ((first, optimizers), (second, copies)):
        torch.manual_seed(1)
        train(flow, own, latents, steps=70)
        flow.finish()
    assert first.diagnostics() == second.diagnostics()
    assert first.diagnostics()["best_step"] > 70
    assert not len(first.held_out)
    for name, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[name]), name
