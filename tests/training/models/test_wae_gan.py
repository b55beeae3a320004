from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from tests.training.variants import SHAPE, SMALL, batches
from training.models.wae_gan import WAEGAN
from training.optimizers import descend


def model(**settings: float) -> WAEGAN:
    torch.manual_seed(0)
    return WAEGAN(SHAPE, **SMALL["wae_gan"] | settings).train()


def step(learner: WAEGAN, optimizers: dict[str, torch.optim.Optimizer], source: Iterator[Tensor], only: str) -> None:
    for name, terms in learner.updates(source, 0.0):
        if name == only:
            descend(optimizers[name], terms)


def test_the_critic_takes_the_batch_of_the_auto_encoder():
    source = iter([next(batches())])  # a second batch would be a StopIteration
    assert [name for name, _ in model().updates(source, 0.0)] == ["autoencoder", "critic"]


def test_the_losses_are_cross_entropies_and_the_prior_is_real():
    learner, x = model(adversarial_weight=3.0).eval(), next(batches())
    torch.manual_seed(1)
    found = {name: terms["adversarial"] for name, terms in learner.updates(iter([x]), 0.0)}
    torch.manual_seed(1)
    real, fake = learner.critic(learner.prior.noise(len(x))), learner.critic(learner.encode(x))
    one, zero = torch.ones_like(real), torch.zeros_like(real)
    fooling = binary_cross_entropy_with_logits(fake, one)
    telling = binary_cross_entropy_with_logits(real, one) + binary_cross_entropy_with_logits(fake, zero)
    torch.testing.assert_close(found["autoencoder"], 3.0 * fooling)
    torch.testing.assert_close(found["critic"], 3.0 * telling)


def test_the_critic_scores_the_prior_above_latents():
    learner, source = model(critic_lr=1e-2), batches()
    optimizers = learner.optimizers()
    for _ in range(30):
        step(learner, optimizers, source, "critic")
    assert learner.critic(learner.prior.noise(256)).mean() > learner.critic(learner.codes(next(source))).mean()


def test_the_encoder_rises_on_the_critic():
    learner, source = model(reconstruction_weight=1e-6), batches()
    optimizers, x = learner.optimizers(), next(batches())
    before = learner.critic(learner.codes(x)).mean().item()
    for _ in range(10):
        step(learner, optimizers, source, "autoencoder")
    assert learner.critic(learner.codes(x)).mean().item() > before
