"""What every model promises, whatever the system; each new one joins by its name in MODELS."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest
import torch
from torch import Tensor

from rae_serve.errors import InvalidInput
from training import recipe as recipes
from training.autoencoder import Autoencoder, Update
from training.models.flexae import FlexAE
from training.models.flexae_sr import FlexAESR
from training.recipe import MODELS as FOLDER
from training.trainer import descend

SMALL = {
    "flexae": {"latent_dim": 4, "noise_dim": 6, "filters": 4, "hidden": 8, "prior_hidden": 8, "critic_hidden": 8}
}
SMALL["maskaae"] = {"network": "conv", "latent_dim": 4, "filters": 4, "hidden": 8, "critic_hidden": 8}
SMALL["flexae_sr"] = SMALL["flexae"]
MODELS = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
SHAPE = (1, 8, 8)


def batches(seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.rand(16, *SHAPE, generator=generator)


def further_updates(model: Autoencoder) -> Iterator[Update]:
    if type(model).prior_updates is Autoencoder.prior_updates:
        return iter(())
    return model.prior_updates(iter([torch.randn(16, 4) for _ in range(9)]), 0)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Autoencoder:
    torch.manual_seed(0)
    return recipes.model_class(request.param)(SHAPE, **SMALL[request.param])


def test_shapes(model):
    x = next(batches())
    latents = model.eval().codes(x)
    assert latents.shape == (16, 4)
    assert model.decode(latents).shape == x.shape
    assert 0 <= model.decode(latents).min() <= model.decode(latents).max() <= 1
    assert model.prior(torch.randn(5, model.prior.noise_dim)).shape == (5, 4)
    assert len(model.prior.roles) == model.prior.noise_dim


def test_each_update_moves_its_own_parameters_and_all_of_them(model):
    optimizers = model.train().optimizers()
    seen = set()
    for name, terms in chain(model.updates(batches(), 0), further_updates(model)):
        seen.add(name)
        own = {id(p) for group in optimizers[name].param_groups for p in group["params"]}
        before = [(p, p.detach().clone()) for p in model.parameters()]
        descend(optimizers[name], terms)
        for parameter, value in before:
            moved = not torch.equal(parameter, value)
            if id(parameter) not in own:
                assert not moved, f"{name} moved a parameter of another optimiser"
        assert any(not torch.equal(p, value) for p, value in before if id(p) in own)
    assert seen == set(optimizers)
    assert {id(p) for o in optimizers.values() for g in o.param_groups for p in g["params"]} == {
        id(p) for p in model.parameters() if p.requires_grad
    }


def test_codes_leave_batch_norm_alone(model):
    model.train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert not model.codes(next(batches())).requires_grad
    assert model.codes(next(batches()), gradient=True).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    model.encode(next(batches()))
    assert any(not torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_a_seed_is_a_seed(model):
    def weights() -> list[Tensor]:
        torch.manual_seed(3)
        fresh = type(model)(SHAPE, **SMALL[type(model).__module__.split(".")[-1]]).train()
        optimizers = fresh.optimizers()
        for name, terms in fresh.updates(batches(), 0):
            descend(optimizers[name], terms)
        return list(fresh.parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))


class TestFlexAE:
    def test_order_and_fresh_batches_are_the_published_ones(self):
        model = FlexAE(SHAPE, **SMALL["flexae"]).train()
        drawn = []

        def counted() -> Iterator[Tensor]:
            for x in batches():
                drawn.append(x)
                yield x

        names = [name for name, _ in model.updates(counted(), 0)]
        assert names == ["autoencoder", *["critic"] * 5, "generator", "encoder"]
        assert len(drawn) == 6

    def test_critic_scores_codes_above_the_prior(self):
        torch.manual_seed(0)
        model = FlexAE(SHAPE, **SMALL["flexae"], critic_lr=1e-2).train()
        optimizers = model.optimizers()
        source = batches()
        for _ in range(30):
            for name, terms in model.updates(source, 0):
                if name == "critic":
                    descend(optimizers[name], terms)
        real, fake = model.codes(next(source)), model.prior(model.prior.noise(256))
        assert model.critic(real).mean() > model.critic(fake).mean()

    def test_generator_rises_and_encoder_falls_on_the_critic(self):
        torch.manual_seed(0)
        model = FlexAE(SHAPE, **SMALL["flexae"], generator_lr=1e-3, encoder_lr=1e-3).train()
        optimizers = model.optimizers()
        x, noise = next(batches()), model.prior.noise(256)
        before = model.critic(model.prior(noise)).mean().item(), model.critic(model.codes(x)).mean().item()
        source = batches()
        for _ in range(20):
            for name, terms in model.updates(source, 0):
                if name in ("generator", "encoder"):
                    descend(optimizers[name], terms)
        assert model.critic(model.prior(noise)).mean().item() > before[0]
        assert model.critic(model.codes(x)).mean().item() < before[1]

    def test_defaults_are_the_published_optimisers(self):
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

    def test_networks_are_the_published_ones(self):
        model = FlexAE((3, 64, 64), latent_dim=128)
        shapes = [tuple(p.shape) for n, p in model.encoder.named_parameters() if n.endswith("weight") and p.dim() > 1]
        assert shapes == [(64, 3, 4, 4), (128, 64, 4, 4), (1024, 128 * 16 * 16), (128, 1024)]
        shapes = [tuple(p.shape) for n, p in model.decoder.named_parameters() if n.endswith("weight") and p.dim() > 1]
        assert shapes == [(1024, 128), (128 * 256, 1024), (128, 128, 4, 4), (128, 64, 4, 4), (3, 64, 3, 3)]
        for network in (model.prior, model.critic):
            assert [p.shape[0] for n, p in network.named_parameters() if n.endswith("weight")][:4] == [1024] * 4

    def test_further_steps_of_the_prior_bring_it_to_the_codes(self):
        torch.manual_seed(0)
        stable = {"prior_critic_steps": 5, "prior_critic_lr": 1e-3, "prior_penalty": 10.0}  # for a tiny critic
        model = FlexAE(SHAPE, **SMALL["flexae"], **stable, average=0.9).train()
        optimizers = model.optimizers()
        codes = 3.0 + 0.5 * torch.randn(2000, 4)
        untrained = model.prior(torch.randn(500, 6)).mean().item()

        def batch() -> Iterator[Tensor]:
            while True:
                yield codes[torch.randint(0, 2000, (64,))]

        for step in range(300):
            for name, terms in model.prior_updates(batch(), step):
                descend(optimizers[name], terms)
        sampled = model.eval().prior(torch.randn(500, 6)).mean().item()
        assert abs(sampled - 3.0) < 0.5 * abs(untrained - 3.0)

    def test_a_whitened_prior_of_equal_codes_makes_those(self):
        model = FlexAE(SHAPE, **SMALL["flexae"], prior_whitened=True)
        codes = torch.full((20, 4), 0.5)
        model.start_prior(codes)
        torch.testing.assert_close(model.eval().prior(torch.randn(20, 6)), codes, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("average", [0.0, 0.9])
    def test_a_whitened_prior_starts_at_the_gaussian_of_the_codes(self, average):
        torch.manual_seed(0)
        model = FlexAE(SHAPE, **SMALL["flexae"], average=average, prior_whitened=True)
        mix = torch.tensor([[2.0, 0.0, 0.0, 0.0], [1.0, 0.1, 0.0, 0.0], [0.0, 0.5, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
        codes = 3.0 + torch.randn(5000, 4) @ mix.T  # correlated, of unlike widths, one of them unused
        before = model.critic[0].weight.clone()
        model.start_prior(codes)
        sampled = model.eval().prior(torch.randn(50_000, 6))
        torch.testing.assert_close(sampled.mean(dim=0), codes.mean(dim=0), atol=0.05, rtol=0)
        torch.testing.assert_close(torch.cov(sampled.T), torch.cov(codes.T), atol=0.2, rtol=0.05)
        torch.testing.assert_close(torch.cov(model.prior.whiten(codes).T)[:3, :3], torch.eye(3), atol=1e-3, rtol=0)
        noise = torch.randn(8, 6)
        torch.testing.assert_close(
            model.prior.whiten(model.prior(noise)), model.prior.white(noise), atol=1e-3, rtol=0
        )
        assert not torch.equal(model.critic[0].weight, before)

    def test_evaluation_samples_by_the_averaged_weights(self):
        prior = FlexAE(SHAPE, **SMALL["flexae"], average=0.5).prior
        noise = torch.randn(4, 6)
        weight = prior.network[0].weight
        for value in (1.0, 2.0):
            torch.nn.init.constant_(weight, value)
            for _ in range(100 if value == 1.0 else 1):
                prior.update_average()
        torch.testing.assert_close(prior.averaged[0].weight, torch.full_like(weight, 1.5))
        assert not torch.equal(prior.eval()(noise), prior.train()(noise))

    def test_noise_narrower_than_the_latent_is_refused(self):
        with pytest.raises(InvalidInput, match=r"noise_dim: must be at least latent_dim = 4.*not 3"):
            FlexAE(SHAPE, **SMALL["flexae"] | {"noise_dim": 3})

    def test_sides_that_no_stride_divides_are_refused(self):
        with pytest.raises(InvalidInput, match="30 × 28 pixels"):
            FlexAE((1, 30, 28))


class TestFlexAESR:
    def test_order_and_batches_are_the_published_ones(self):
        model = FlexAESR(SHAPE, **SMALL["flexae"]).train()
        names = [name for name, _ in model.updates(batches(), 0)]
        assert names == ["autoencoder", *["critic", "image_critic"] * 5, "smoothing", "generator", "encoder"]

    def test_image_critic_scores_images_above_interpolates(self):
        torch.manual_seed(0)
        model = FlexAESR(SHAPE, **SMALL["flexae"], image_critic_lr=1e-2).train()
        optimizers = model.optimizers()
        source = batches()
        for _ in range(10):
            for name, terms in model.updates(source, 0):
                if name == "image_critic":
                    descend(optimizers[name], terms)
        x = next(source)
        assert model.image_critic(x).mean() > model.image_critic(model.interpolates(x)).mean()

    def test_smoothing_moves_encoder_and_decoder_up_the_image_critic(self):
        torch.manual_seed(0)
        model = FlexAESR(SHAPE, **SMALL["flexae"]).train()
        optimizers = model.optimizers()
        x = next(batches())

        def score() -> float:
            torch.manual_seed(1)
            return model.image_critic(model.interpolates(x)).mean().item()

        before = score()
        for _ in range(20):
            terms = {"adversarial": -model.image_critic(model.interpolates(x, gradient=True)).mean()}
            descend(optimizers["smoothing"], terms)
        assert score() > before

    def test_image_critics_are_the_published_optimisers(self):
        optimizers = FlexAESR(SHAPE, **SMALL["flexae"]).optimizers()
        for name in ("image_critic", "smoothing"):
            assert (optimizers[name].defaults["lr"], optimizers[name].defaults["betas"]) == (2e-4, (0.5, 0.9))
