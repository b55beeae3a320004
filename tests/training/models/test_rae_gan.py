from __future__ import annotations

import pytest
import torch

from tests.training.variants import SHAPE, SMALL, batches
from training.models.rae_gan import RAEGAN
from training.optimizers import descend


def model(**settings: float) -> RAEGAN:
    torch.manual_seed(0)
    keys = {key: value for key, value in SMALL["rae_gan"].items() if not key.startswith("posthoc")}
    return RAEGAN(SHAPE, **keys | settings).train()


def test_the_discriminator_begins_when_it_is_told_to():
    learner, source = model(adversarial_start=0.5), batches()
    assert [name for name, _ in learner.updates(source, 0.4)] == ["autoencoder"]
    assert [name for name, _ in learner.updates(source, 0.5)] == ["autoencoder", "discriminator"]
    assert [name for name, _ in model(adversarial=0.0).updates(source, 0.5)] == ["autoencoder"]


@pytest.mark.parametrize("adversarial", [0.5, 2.0])
def test_the_adversarial_gradient_has_its_length_beside_the_others(adversarial):
    learner = model(adversarial=adversarial)
    reconstructions = []
    learner.decoder.register_forward_hook(lambda module, inputs, output: reconstructions.append(output))
    _, terms = next(learner.updates(batches(), 0.5))
    others = sum(value for name, value in terms.items() if name != "adversarial")
    lengths = [
        torch.autograd.grad(loss, reconstructions, retain_graph=True)[0].norm()
        for loss in (terms["adversarial"], others)
    ]
    torch.testing.assert_close(lengths[0], adversarial * lengths[1])


def test_the_loss_of_the_discriminator_is_the_hinge_loss():
    learner, x = model(), next(batches())
    learner.eval()  # batch norm and spectral norm stay as they are
    found = dict(learner.updates(iter([x]), 0.5))["discriminator"]["hinge"]
    real, fake = learner.discriminator(x), learner.discriminator(learner.decode(learner.encode(x)))
    expected = (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
    torch.testing.assert_close(found, expected)


def test_the_discriminator_scores_images_above_reconstructions_and_the_decoder_follows():
    learner, source = model(adversarial=20.0), batches()
    optimizers, x = learner.optimizers(), next(batches())
    for _ in range(40):
        for name, terms in learner.updates(source, 0.5):
            if name == "discriminator":
                descend(optimizers[name], terms)

    def gap() -> float:
        with torch.no_grad():
            return float(
                learner.discriminator(x).mean() - learner.discriminator(learner.images(learner.codes(x))).mean()
            )

    told = gap()
    assert told > 0.2
    for _ in range(20):
        name, terms = next(learner.updates(source, 0.5))
        descend(optimizers[name], terms)
    assert gap() < told
