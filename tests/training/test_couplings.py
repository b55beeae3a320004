from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from zuko import distributions, transforms

from training.couplings import Couplings

CONTEXT_DIM = 3


def couplings(latent_dim: int, layers: int = 6, *, trained: bool = True) -> Couplings:
    torch.manual_seed(0)
    fresh = Couplings(latent_dim, layers, hidden=16, context_dim=CONTEXT_DIM).double()
    if trained:
        for parameter in fresh.parameters():
            nn.init.normal_(parameter, std=0.3)
    return fresh


@pytest.fixture(params=[1, 2, 5, 8])
def latent_dim(request: pytest.FixtureRequest) -> int:
    return request.param


def rows(latent_dim: int) -> tuple[Tensor, Tensor]:
    return torch.randn(7, latent_dim).double(), torch.randn(7, CONTEXT_DIM).double()


def test_the_map_is_the_identity_at_first(latent_dim):
    noise, context = rows(latent_dim)
    latents, log_det = couplings(latent_dim, trained=False)(noise, context)
    assert torch.equal(latents, noise)
    assert torch.equal(log_det, torch.zeros(7).double())


def test_the_inverse_gives_the_noise_back(latent_dim):
    flow, (noise, context) = couplings(latent_dim), rows(latent_dim)
    latents, log_det = flow(noise, context)
    assert (latents - noise).abs().min() > 0  # every dimension is changed
    back, inverse_log_det = flow.inverse(latents, context)
    torch.testing.assert_close(back, noise)
    torch.testing.assert_close(inverse_log_det, -log_det)


def test_the_determinant_is_that_of_autograds_jacobian(latent_dim):
    flow, (noise, context) = couplings(latent_dim), rows(latent_dim)
    _, log_det = flow(noise, context)
    for row in range(len(noise)):

        def latent(z: Tensor, c: Tensor = context[row : row + 1]) -> Tensor:
            return flow(z[None], c)[0][0]

        jacobian = torch.autograd.functional.jacobian(latent, noise[row])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[row])


@pytest.mark.parametrize("latent_dim", [2, 5, 8])
def test_with_enough_layers_every_latent_depends_on_all_the_noise(latent_dim):
    flow, (noise, context) = couplings(latent_dim, layers=8), rows(latent_dim)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow(z, context)[0].sum(dim=0), noise).abs().sum(dim=1)
    assert (jacobian > 0).all()


def test_the_context_changes_the_map(latent_dim):
    flow, (noise, context) = couplings(latent_dim), rows(latent_dim)
    assert (flow(noise, context)[0] - flow(noise, context.flip(0))[0]).abs().sum(dim=1)[[0, 1, 2, 4, 5, 6]].min() > 0


def test_the_density_is_that_of_zuko():
    """Each layer as one of zuko's coupling transforms, from latents to noise."""
    flow, (latents, context) = couplings(4), rows(4)

    def inverted(layer: nn.Module) -> transforms.CouplingTransform:
        kept = layer.kept.bool()

        def affine(seen: Tensor) -> torch.distributions.AffineTransform:
            values = torch.zeros_like(latents)
            values[:, kept] = seen
            log_scale, shift = (part[:, ~kept] for part in layer(values, context))
            return torch.distributions.AffineTransform(-shift * (-log_scale).exp(), (-log_scale).exp(), event_dim=1)

        return transforms.CouplingTransform(affine, kept)

    zero, one = torch.zeros(4).double(), torch.ones(4).double()
    chain = transforms.ComposedTransform(*(inverted(layer) for layer in reversed(flow.layers)))
    base = distributions.DiagNormal(zero, one)
    noise, log_det = flow.inverse(latents, context)
    expected = distributions.NormalizingFlow(chain, base).log_prob(latents)
    torch.testing.assert_close(base.log_prob(noise) + log_det, expected)
