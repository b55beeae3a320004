from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pythae.models import FactorVAE as PythaeFactorVAE
from torch import Tensor

from tests.training.variants import SHAPE, SMALL, batches
from training.models.factor_vae import FactorVAE, permuted
from training.optimizers import descend


def model(**settings: float) -> FactorVAE:
    torch.manual_seed(0)
    return FactorVAE(SHAPE, **SMALL["factor_vae"] | settings).train()


def take(learner: FactorVAE, steps: int, only: str) -> None:
    """Take the steps of one optimiser alone."""
    optimizers, source = learner.optimizers(), batches(size=128)
    for _ in range(steps):
        for name, terms in learner.updates(source, 0.0):
            if name == only:
                descend(optimizers[name], terms)


def dependent(learner: FactorVAE) -> None:
    """Make all latents of an image nearly the same number."""
    last = learner.encoder[-1]
    with torch.no_grad():
        last.weight.copy_(torch.cat([last.weight[:1].expand(4, -1), 0.0 * last.weight[4:]]))
        last.bias[4:] = -6.0


def test_permuted_latents_keep_their_marginals_and_lose_their_dependence():
    latents = torch.randn(2000, 1) * torch.tensor([1.0, 2.0, -1.0])
    shuffled = permuted(latents)
    assert torch.equal(shuffled.sort(dim=0).values, latents.sort(dim=0).values)
    torch.testing.assert_close(torch.corrcoef(shuffled.T), torch.eye(3), atol=0.1, rtol=0)


def test_the_critic_scores_latents_above_permuted_ones():
    learner = model(critic_lr=1e-2)
    dependent(learner)
    take(learner, 30, "critic")
    latents = learner.codes(next(batches(size=512)))
    assert learner.critic(latents).mean() > 0.2 + learner.critic(permuted(latents)).mean()


def test_the_encoder_lowers_the_total_correlation():
    learner = model(critic_lr=1e-2, gamma=1000.0)
    dependent(learner)
    take(learner, 30, "critic")
    before = learner.critic(learner.codes(next(batches(size=512)))).mean().item()
    take(learner, 10, "autoencoder")
    assert learner.critic(learner.codes(next(batches(size=512)))).mean().item() < before


def test_the_permuted_latents_are_of_a_second_batch():
    source = batches()
    list(model().updates(source, 0.0))
    two_on = batches()
    next(two_on), next(two_on)
    assert torch.equal(next(source), next(two_on))


def test_the_losses_are_those_of_pythae():
    learner, first, second = model(gamma=3.0).eval(), next(batches()), next(batches(seed=1))
    torch.manual_seed(1)
    found = {f"{name}/{term}": v for name, u in learner.updates(iter([first, second]), 0.0) for term, v in u.items()}

    def two_logits(latents: Tensor) -> Tensor:
        logit = learner.critic(latents)
        return torch.cat([logit, torch.zeros_like(logit)], dim=1)

    other = SimpleNamespace(
        model_config=SimpleNamespace(reconstruction_loss="bce"), gamma=3.0, discriminator=two_logits
    )
    rows = learner.rows(first)
    torch.manual_seed(1)
    latents = learner.latents(rows)
    reconstruction = learner.decode(latents)
    of_vae, autoencoder, _ = PythaeFactorVAE.loss_function(
        other, reconstruction, first, *rows.chunk(2, dim=1), latents, latents
    )
    assert of_vae.item() == pytest.approx(found["autoencoder/reconstruction"].item(), rel=1e-5)
    total = sum(value for name, value in found.items() if name.startswith("autoencoder/"))
    assert autoencoder.item() == pytest.approx(total.item(), rel=1e-5)

    joint, independent = learner.codes(first), permuted(learner.codes(second))  # drawn in the same order
    _, _, critic = PythaeFactorVAE.loss_function(
        other, reconstruction, first, *rows.chunk(2, dim=1), joint, independent
    )
    assert critic.item() == pytest.approx(found["critic/cross_entropy"].item(), rel=1e-5)
