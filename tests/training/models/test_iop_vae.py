from __future__ import annotations

import torch

from tests.training.variants import SHAPE, SMALL, batches
from training.losses import gaussian_kl
from training.models.iop_vae import IOPVAE
from training.optimizers import descend


def build(**settings: float) -> IOPVAE:
    torch.manual_seed(0)
    return IOPVAE(SHAPE, **(SMALL["iop_vae"] | settings))


def test_the_network_scores_latents_above_noise_after_its_own_updates():
    model = build(ratio_steps=100, ratio_hidden=32, ratio_lr=1e-2).train()
    torch.nn.init.constant_(model.encoder[-1].bias, 2.0)  # latents far from N(0, I)
    optimizers = model.optimizers()
    for name, terms in model.updates(batches(), 1.0):
        if name == "ratio":
            descend(optimizers[name], terms)
    latents = model.codes(next(batches(1)))
    assert model.prior.log_ratio(latents).mean() > 1.0
    assert model.prior.log_ratio(torch.randn_like(latents)).mean() < -1.0


def test_the_divergence_is_less_by_the_mean_log_ratio():
    model = build().eval()
    torch.nn.init.normal_(model.prior.network[-1].weight)
    rows = model.rows(next(batches()))
    latents = model.latents(rows)
    expected = gaussian_kl(*rows.chunk(2, dim=1)) - model.prior.log_ratio(latents).mean()
    torch.testing.assert_close(model.divergence(rows, latents), expected)
    assert model.divergence(rows, latents) == model.train().divergence(rows, latents)  # no dropout
