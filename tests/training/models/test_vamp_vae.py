from __future__ import annotations

import torch
from torch import distributions

from tests.training.variants import SHAPE, SMALL, batches
from training.models.vamp_vae import VampVAE
from training.optimizers import descend


def build(**settings: float) -> VampVAE:
    torch.manual_seed(0)
    return VampVAE(SHAPE, **(SMALL["vamp_vae"] | settings))


def test_the_divergence_is_from_the_mixture_of_the_pseudo_inputs_posteriors():
    model = build().eval()
    rows = model.rows(next(batches())).detach()
    latents = model.latents(rows)
    mean, log_variance = rows.chunk(2, dim=1)
    posterior = distributions.Independent(distributions.Normal(mean, (0.5 * log_variance).exp()), 1)
    expected = posterior.log_prob(latents) - model.prior.log_density(latents)
    torch.testing.assert_close(model.divergence(rows, latents).detach(), expected.mean())


def test_the_prior_follows_the_pseudo_inputs_into_evaluation():
    model = build().train()
    (optimizer,) = model.optimizers().values()
    before = model.eval().prior.means.clone()
    for _, terms in model.train().updates(batches(), 1.0):
        descend(optimizer, terms)
    assert torch.equal(model.prior.means, before)
    means, log_variances = model.eval().rows(model.pseudo_inputs.clamp(0.0, 1.0)).chunk(2, dim=1)
    assert not torch.equal(means, before)
    torch.testing.assert_close(model.prior.means, means)
    torch.testing.assert_close(model.prior.scales, (0.5 * log_variances).exp())


def test_every_pixel_of_every_pseudo_input_can_learn():
    for pseudo_mean in (0.05, 0.5, 0.9):
        model = build(pseudo_mean=pseudo_mean)
        assert 0.0 < model.pseudo_inputs.min() < model.pseudo_inputs.max() < 1.0
        rows = model.rows(next(batches()))
        model.divergence(rows, model.latents(rows)).backward()
        assert (model.pseudo_inputs.grad != 0).double().mean() > 0.95


def test_log_variances_stay_in_their_range():
    model = build().eval()
    torch.nn.init.constant_(model.encoder[-1].bias, 50.0)
    assert model.rows(next(batches())).chunk(2, dim=1)[1].max() == 2.0
    torch.nn.init.constant_(model.encoder[-1].bias, -50.0)
    assert model.rows(next(batches())).chunk(2, dim=1)[1].min() == -6.0
