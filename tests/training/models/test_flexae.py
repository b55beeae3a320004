from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from rae_serve.errors import InvalidInput
from tests.training.variants import SHAPE, SMALL, batches
from training.models.flexae import FlexAE
from training.optimizers import descend


def test_order_and_fresh_batches_are_the_published_ones():
    model = FlexAE(SHAPE, **SMALL["flexae"]).train()
    drawn = []

    def counted() -> Iterator[Tensor]:
        for x in batches():
            drawn.append(x)
            yield x

    names = [name for name, _ in model.updates(counted(), 0)]
    assert names == ["autoencoder", *["critic"] * 5, "generator", "encoder"]
    assert len(drawn) == 6


def test_critic_scores_codes_above_the_prior():
    torch.manual_seed(0)
    model = FlexAE(SHAPE, **SMALL["flexae"], critic_lr=1e-2).train()
    optimizers = model.optimizers()
    source = batches()
    for _ in range(30):
        for name, terms in model.updates(source, 0):
            if name == "critic":
                descend(optimizers[name], terms)
    real, fake = model.codes(next(source)), model.prior(model.prior.noise(256))
    assert model.generator.critic(real).mean() > model.generator.critic(fake).mean()


def test_generator_rises_and_encoder_falls_on_the_critic():
    torch.manual_seed(0)
    model = FlexAE(SHAPE, **SMALL["flexae"], generator_lr=1e-3, encoder_lr=1e-3).train()
    optimizers = model.optimizers()
    x, noise = next(batches()), model.prior.noise(256)
    critic = model.generator.critic
    before = critic(model.prior(noise)).mean().item(), critic(model.codes(x)).mean().item()
    source = batches()
    for _ in range(20):
        for name, terms in model.updates(source, 0):
            if name in ("generator", "encoder"):
                descend(optimizers[name], terms)
    assert critic(model.prior(noise)).mean().item() > before[0]
    assert critic(model.codes(x)).mean().item() < before[1]


def test_defaults_are_the_published_optimisers():
    optimizers = FlexAE((1, 28, 28)).optimizers()
    published = {
        "autoencoder": (2e-4, (0.9, 0.999)),
        "critic": (1e-4, (0.0, 0.9)),
        "generator": (2e-4, (0.0, 0.9)),
        "encoder": (1e-5, (0.0, 0.9)),
    }
    settings = {name: (optimizers[name].defaults["lr"], optimizers[name].defaults["betas"]) for name in published}
    assert settings == published
    assert {o.defaults["eps"] for o in optimizers.values()} == {1e-8}


def test_networks_are_the_published_ones():
    model = FlexAE((3, 64, 64), latent_dim=128)
    shapes = [tuple(p.shape) for n, p in model.encoder.named_parameters() if n.endswith("weight") and p.dim() > 1]
    assert shapes == [(64, 3, 4, 4), (128, 64, 4, 4), (1024, 128 * 16 * 16), (128, 1024)]
    shapes = [tuple(p.shape) for n, p in model.decoder.named_parameters() if n.endswith("weight") and p.dim() > 1]
    assert shapes == [(1024, 128), (128 * 256, 1024), (128, 128, 4, 4), (128, 64, 4, 4), (3, 64, 3, 3)]
    for network in (model.generator.network, model.generator.critic):
        assert [p.shape[0] for n, p in network.named_parameters() if n.endswith("weight")][:4] == [1024] * 4


def test_further_steps_of_the_prior_bring_it_to_the_codes():
    torch.manual_seed(0)
    stable = {"prior_critic_steps": 5, "prior_critic_lr": 1e-3, "prior_penalty": 10.0}  # for a tiny critic
    model = FlexAE(SHAPE, **SMALL["flexae"], **stable, average=0.9).train()
    optimizers = model.prior.optimizers()
    codes = 3.0 + 0.5 * torch.randn(2000, 4)
    untrained = model.prior(torch.randn(500, 6)).mean().item()

    def batch() -> Iterator[Tensor]:
        while True:
            yield codes[torch.randint(0, 2000, (64,))]

    for _ in range(300):
        for name, terms in model.prior.updates(batch(), 0.0):
            descend(optimizers[name], terms)
    sampled = model.eval().prior(torch.randn(500, 6)).mean().item()
    assert abs(sampled - 3.0) < 0.5 * abs(untrained - 3.0)


def test_a_whitened_prior_of_equal_codes_makes_those():
    model = FlexAE(SHAPE, **SMALL["flexae"], prior_whitened=True)
    codes = torch.full((20, 4), 0.5)
    model.start_prior(codes, codes[:50])
    torch.testing.assert_close(model.eval().prior(torch.randn(20, 6)), codes, atol=1e-4, rtol=0)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_whitened_prior_starts_at_the_gaussian_of_the_codes(average):
    torch.manual_seed(0)
    model = FlexAE(SHAPE, **SMALL["flexae"], average=average, prior_whitened=True)
    mix = torch.tensor([[2.0, 0.0, 0.0, 0.0], [1.0, 0.1, 0.0, 0.0], [0.0, 0.5, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    codes = 3.0 + torch.randn(5000, 4) @ mix.T  # correlated, of unlike widths, one of them unused
    before = model.generator.critic[0].weight.clone()
    model.start_prior(codes, codes[:50])
    sampled = model.eval().prior(torch.randn(50_000, 6))
    torch.testing.assert_close(sampled.mean(dim=0), codes.mean(dim=0), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(sampled.T), torch.cov(codes.T), atol=0.2, rtol=0.05)
    torch.testing.assert_close(torch.cov(model.prior.whiten(codes).T)[:3, :3], torch.eye(3), atol=1e-3, rtol=0)
    noise = torch.randn(8, 6)
    torch.testing.assert_close(model.prior.whiten(model.prior(noise)), model.generator(noise), atol=1e-3, rtol=0)
    assert not torch.equal(model.generator.critic[0].weight, before)


def test_noise_narrower_than_the_latent_is_refused():
    with pytest.raises(InvalidInput, match=r"noise_dim: must be at least latent_dim = 4.*not 3"):
        FlexAE(SHAPE, **SMALL["flexae"] | {"noise_dim": 3})


def test_sides_that_no_stride_divides_are_refused():
    with pytest.raises(InvalidInput, match="30 × 28 pixels"):
        FlexAE((1, 30, 28))
