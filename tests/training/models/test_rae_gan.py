from __future__ import annotations

import pytest
import torch
from torch.nn.functional import mse_loss

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


@pytest.mark.parametrize("perceptual", [None, lambda reconstruction, x: (reconstruction - x).abs().mean()])
@pytest.mark.parametrize("adversarial", [0.5, 2.0])
def test_the_adversarial_gradient_has_its_length_beside_that_of_the_errors(adversarial, perceptual):
    learner, x = model(adversarial=adversarial), next(batches())
    learner.perceptual = perceptual
    reconstructions = []
    learner.decoder.register_forward_hook(lambda module, inputs, output: reconstructions.append(output))
    _, terms = next(learner.updates(iter([x]), 0.5))
    (found,) = torch.autograd.grad(sum(terms.values()), reconstructions)

    learner.discriminator.eval()  # spectral norm stays as it is
    reconstruction = reconstructions[0].detach().requires_grad_()
    error = mse_loss(reconstruction, x)
    if perceptual:
        error = error + perceptual(reconstruction, x) / x[0].numel()
    score = learner.discriminator(reconstruction).mean()
    of_error, of_score = (torch.autograd.grad(loss, reconstruction)[0] for loss in (error, score))
    weight = adversarial * of_error.norm() / of_score.norm()
    torch.testing.assert_close(found, of_error - weight * of_score)
    torch.testing.assert_close(terms["adversarial"].detach(), (-weight * score).detach())
    assert ("perceptual" in terms) == bool(perceptual)


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
