from __future__ import annotations

import pytest
import torch

from tests.training.variants import SHAPE, SMALL, batches
from training.models.vae import VAE
from training.optimizers import descend


def train(model: VAE, steps: int) -> None:
    optimizers = model.train().optimizers()
    source = batches()
    for _ in range(steps):
        for name, terms in model.updates(source, 0.0):
            descend(optimizers[name], terms)


def test_latents_are_samples_of_the_encoders_gaussians():
    torch.manual_seed(0)
    rows = torch.cat([torch.full((50_000, 4), 2.0), torch.full((50_000, 4), -1.0)], dim=1)
    latents = VAE(SHAPE, **SMALL["vae"]).latents(rows)
    torch.testing.assert_close(latents.mean(dim=0), torch.full((4,), 2.0), atol=0.02, rtol=0)
    torch.testing.assert_close(latents.var(dim=0), torch.full((4,), -1.0).exp(), atol=0.02, rtol=0)


def test_beta_weighs_the_kl_term_alone():
    def terms(beta: float) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        ((_, found),) = VAE(SHAPE, **SMALL["vae"], beta=beta).train().updates(batches(), 0.0)
        return {name: value.item() for name, value in found.items()}

    one, four = terms(1.0), terms(4.0)
    assert four["kl"] == pytest.approx(4.0 * one["kl"])
    assert four["reconstruction"] == pytest.approx(one["reconstruction"])


def test_the_weight_of_the_kl_term_rises_in_the_warmup():
    def kl(progress: float, warmup: float) -> float:
        torch.manual_seed(0)
        ((_, terms),) = VAE(SHAPE, **SMALL["vae"], warmup=warmup).train().updates(batches(), progress)
        return terms["kl"].item()

    whole = kl(0.0, warmup=0.0)
    rising = [kl(progress, warmup=0.4) / whole for progress in (0.0, 0.1, 0.2, 0.4, 1.0)]
    assert rising == pytest.approx([0.01, 0.25, 0.5, 1.0, 1.0])


def test_a_large_beta_closes_the_latents():
    def divergence(beta: float) -> float:
        torch.manual_seed(0)
        model = VAE(SHAPE, **SMALL["vae"], beta=beta)
        train(model, 200)
        ((_, terms),) = model.updates(batches(1), 0.0)
        return terms["kl"].item() / beta

    assert divergence(10.0) < 0.1
    assert divergence(0.01) > 1.0


def test_a_learned_variance_finds_the_error():
    torch.manual_seed(0)
    model = VAE(SHAPE, **SMALL["vae"], likelihood="learned-variance", lr=1e-2)
    train(model, 400)
    x = next(batches(1))
    error = (model.decode(model.latents(model.rows(x))) - x).square().mean().sqrt().item()
    assert model.diagnostics()["gamma"] == pytest.approx(error, rel=0.1)


def test_a_small_learned_variance_is_no_divergence():
    model = VAE((3, 64, 64), **SMALL["vae"], likelihood="learned-variance").train()
    torch.nn.init.constant_(model.log_gamma, -7.0)
    ((_, terms),) = model.updates(iter([torch.rand(2, 3, 64, 64)]), 0.0)
    assert 1e8 < terms["reconstruction"] < model.largest_term
    assert model.diagnostics()["gamma"] == pytest.approx(1e-3)
