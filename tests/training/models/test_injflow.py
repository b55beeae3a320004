from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from tests.training.variants import LATENT_DIM, SHAPE, SMALL, batches
from training.models.injflow import InjFlow, with_derivative


def model() -> InjFlow:
    torch.manual_seed(0)
    return InjFlow(SHAPE, **SMALL["injflow"]).train()


def test_value_and_derivative_are_those_of_the_decoder():
    decode = model().decode
    latents, direction = torch.randn(3, LATENT_DIM), torch.randn(3, LATENT_DIM)
    value, derivative = with_derivative(decode, latents, direction)
    torch.testing.assert_close(value, decode(latents))
    for z, u, found in zip(latents, direction, derivative, strict=True):
        exact = jacobian(lambda z: decode(z[None])[0], z) @ u
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_the_derivative_is_right():
    learner = model()
    latents, direction = torch.randn(2, LATENT_DIM), torch.randn(2, LATENT_DIM)

    def gradients(derivative: Tensor) -> tuple[Tensor, ...]:
        weights = [weight for weight in learner.decoder.parameters() if weight.dim() > 1]
        return torch.autograd.grad(derivative.flatten(1).square().sum(dim=1).log().sum(), weights)

    _, derivative = with_derivative(learner.decode, latents, direction)
    rows = zip(latents, direction, strict=True)
    exact = torch.stack([jacobian(lambda z: learner.decode(z[None])[0], z, create_graph=True) @ u for z, u in rows])
    for found, expected in zip(gradients(derivative), gradients(exact), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_the_volume_is_the_log_determinant_where_all_directions_are_alike():
    learner = model()
    matrix = 3.0 * nn.init.orthogonal_(torch.empty(math.prod(SHAPE), LATENT_DIM))
    learner.decode = lambda latents: (latents @ matrix.T).unflatten(1, SHAPE)
    ((_, terms),) = learner.updates(batches(), 0.0)
    assert terms["volume"].item() == pytest.approx(0.5 * torch.logdet(matrix.T @ matrix).item(), rel=1e-5)


def test_the_volume_is_at_least_the_log_determinant():
    matrix = torch.randn(9, LATENT_DIM) * torch.tensor([3.0, 1.0, 0.3, 0.1])
    direction = nn.functional.normalize(torch.randn(100_000, LATENT_DIM))
    volume = 0.5 * LATENT_DIM * (direction @ matrix.T).square().sum(dim=1).log().mean()
    assert volume > 0.5 * torch.logdet(matrix.T @ matrix)
