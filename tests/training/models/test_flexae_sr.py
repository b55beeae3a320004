from __future__ import annotations

import torch

from tests.training.variants import SHAPE, SMALL, batches
from training.models.flexae_sr import FlexAESR
from training.optimizers import descend


def test_order_and_batches_are_the_published_ones():
    model = FlexAESR(SHAPE, **SMALL["flexae"]).train()
    names = [name for name, _ in model.updates(batches(), 0)]
    assert names == ["autoencoder", *["critic", "image_critic"] * 5, "smoothing", "generator", "encoder"]


def test_image_critic_scores_images_above_interpolates():
    torch.manual_seed(0)
    model = FlexAESR(SHAPE, **SMALL["flexae"], image_critic_lr=1e-2).train()
    optimizers = model.optimizers()
    source = batches()
    for _ in range(10):
        for name, terms in model.updates(source, 0):
            if name == "image_critic":
                descend(optimizers[name], terms)
    x = next(source)
    assert model.image_critic(x).mean() > model.image_critic(model.interpolate(x)).mean()


def test_smoothing_moves_encoder_and_decoder_up_the_image_critic():
    torch.manual_seed(0)
    model = FlexAESR(SHAPE, **SMALL["flexae"]).train()
    optimizers = model.optimizers()
    x = next(batches())

    def score() -> float:
        torch.manual_seed(1)
        return model.image_critic(model.interpolate(x)).mean().item()

    before, fixed = score(), [p.detach().clone() for p in model.image_critic.parameters()]
    for _ in range(20):
        for name, terms in model.updates(batches(), 0):
            if name == "smoothing":
                descend(optimizers[name], terms)
    assert score() > before
    assert all(torch.equal(p, value) for p, value in zip(model.image_critic.parameters(), fixed, strict=True))


def test_image_critics_are_the_published_optimisers():
    optimizers = FlexAESR(SHAPE, **SMALL["flexae"]).optimizers()
    for name in ("image_critic", "smoothing"):
        assert (optimizers[name].defaults["lr"], optimizers[name].defaults["betas"]) == (2e-4, (0.5, 0.9))
