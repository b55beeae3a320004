"""What every model promises, whatever the system. A new model joins in tests/training/variants.py."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from itertools import chain, islice

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rae_serve import noise
from tests.training.variants import LATENT_DIM, SMALL, VARIANTS, batches, build
from training import keys
from training.autoencoder import Autoencoder
from training.optimizers import Update, descend
from training.priors.second_stage import SecondStage
from training.priors.wrappers import Whitened


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(variant: str) -> Autoencoder:
    torch.manual_seed(0)
    return build(variant)


def endless(rows: Tensor) -> Iterator[Tensor]:
    while True:
        yield rows[torch.randint(0, len(rows), (64,))]


def all_updates(model: Autoencoder, progress: float = 0.0) -> Iterator[Update]:
    """Every update of a step of either stage, each taken before the next is computed."""
    rows = model.rows(next(batches())).detach()
    return chain(model.updates(batches(), progress), model.prior_updates(endless(rows), progress))


def all_optimizers(model: Autoencoder) -> dict[str, torch.optim.Optimizer]:
    return {**model.optimizers(), **model.sampler.optimizers()}


def test_every_model_of_the_package_is_driven():
    assert set(SMALL) == set(keys.names())
    assert set(SMALL) <= set(VARIANTS)


@pytest.mark.parametrize("name", keys.names())
def test_the_keys_read_from_the_source_are_the_keywords_of_the_constructors(name):
    found = keys.model_class(name)
    model = getattr(importlib.import_module(f"training.models.{name}"), found.name)
    assert issubclass(model, Autoencoder)
    keywords = {}
    for part in reversed(model.__mro__):
        for key, parameter in inspect.signature(part.__init__, eval_str=True).parameters.items():
            if issubclass(part, Autoencoder) and parameter.kind is parameter.KEYWORD_ONLY:
                keywords[key] = (parameter.annotation, parameter.default)
    assert list(found.keys) == list(keywords)
    for key, (annotation, default) in keywords.items():
        assert repr(found.keys[key]) == repr((annotation, default))


def test_shapes(model):
    x = next(batches())
    latents = model.eval().codes(x)
    assert latents.shape == (16, LATENT_DIM)
    assert model.encode(x).shape == (16, LATENT_DIM)
    assert model.decode(latents).shape == x.shape
    assert 0 <= model.decode(latents).min() <= model.decode(latents).max() <= 1
    assert model.sampler(torch.randn(5, model.sampler.noise_dim)).shape == (5, LATENT_DIM)
    assert len(model.sampler.roles) == model.sampler.noise_dim


def test_a_fresh_state_is_finite_and_can_be_saved(variant, model):
    state = model.state_dict()
    assert all(torch.isfinite(value).all() for value in state.values())
    again = safetensors.torch.load(safetensors.torch.save(state))
    torch.manual_seed(1)
    other = build(variant)
    other.load_state_dict(again)
    rows = torch.from_numpy(noise.normals(3, 0, 8, model.sampler.noise_dim))
    with torch.no_grad():
        assert torch.equal(other.eval().decode(other.sampler(rows)), model.eval().decode(model.sampler(rows)))


def test_each_update_moves_its_own_parameters_and_all_of_them(model):
    optimizers = all_optimizers(model.train())
    seen = set()
    for name, terms in all_updates(model):
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


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_every_term_is_a_finite_scalar_with_a_gradient(model, progress):
    optimizers = all_optimizers(model.train())
    for name, terms in all_updates(model, progress):
        own = [p for group in optimizers[name].param_groups for p in group["params"]]
        assert terms
        for term, value in terms.items():
            assert value.shape == ()
            assert torch.isfinite(value)
            gradients = torch.autograd.grad(value, own, allow_unused=True, retain_graph=True)
            assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients), (name, term)
        descend(optimizers[name], terms)


def test_encoding_is_deterministic(model):
    x = next(batches())
    model.eval()
    assert torch.equal(model.encode(x), model.encode(x))


@pytest.mark.parametrize(
    "variant", [name for name in VARIANTS if name != "flow_vae"]
)  # it encodes to a flow of the mean
def test_encoding_is_the_mean_of_the_latents(model):
    x = next(batches())
    model.eval()
    with torch.no_grad():
        drawn = torch.stack([model.codes(x) for _ in range(400)])
        deviation = drawn.std(dim=0).mean().item()
        torch.testing.assert_close(drawn.mean(dim=0), model.encode(x), atol=5.0 * deviation / 20.0 + 1e-5, rtol=0)


def test_codes_leave_batch_norm_alone(model):
    model.train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert not model.codes(next(batches())).requires_grad
    assert model.codes(next(batches()), gradient=True).requires_grad
    assert not model.images(torch.randn(16, LATENT_DIM)).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    model.decode(model.encode(next(batches())))
    normalised = any(isinstance(part, torch.nn.modules.batchnorm._BatchNorm) for part in model.modules())
    changed = any(not torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert changed == normalised


def test_images_and_codes_are_decode_and_encode(model):
    x = next(batches())
    model.eval()
    latents = model.encode(x)
    torch.testing.assert_close(model.images(latents), model.decode(latents).detach())
    torch.manual_seed(5)
    codes = model.codes(x)
    torch.manual_seed(5)
    torch.testing.assert_close(codes, model.latents(model.rows(x)).detach())


def test_the_reconstruction_falls(model):
    optimizers, source, x = model.train().optimizers(), batches(size=64), next(batches(seed=1, size=64))

    def error() -> float:
        return (model.images(model.codes(x)) - x).square().mean().item()

    before = error()
    for _ in range(100):
        for name, terms in model.updates(source, 0.5):
            descend(optimizers[name], terms)
    assert error() < 0.9 * before


def test_a_seed_is_a_seed(variant):
    def weights() -> list[Tensor]:
        torch.manual_seed(3)
        fresh = build(variant).train()
        optimizers = all_optimizers(fresh)
        for name, terms in all_updates(fresh):
            descend(optimizers[name], terms)
        return list(fresh.parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))


def test_the_prior_is_ready_once_it_is_started(model):
    model.eval()
    rows = torch.cat([model.rows(x) for x in islice(batches(size=64), 32)]).detach()
    model.start_prior(rows, rows[:64])
    model.sampler.finish()
    assert model.sampler.fitted
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    if isinstance(model.sampler, Whitened) and not isinstance(model.sampler.prior, SecondStage):  # it needs updates
        latents, noise_rows = model.latents(rows), noise.normals(5, 0, 5000, model.sampler.noise_dim)
        samples, deviation = model.sampler(torch.from_numpy(noise_rows)).detach(), latents.std(dim=0)
        drift = (samples.mean(dim=0) - latents.mean(dim=0)) / deviation
        torch.testing.assert_close(drift, torch.zeros(LATENT_DIM), atol=0.1, rtol=0)
        torch.testing.assert_close(torch.corrcoef(samples.T), torch.corrcoef(latents.T), atol=0.1, rtol=0)
        torch.testing.assert_close(samples.std(dim=0), deviation, atol=0, rtol=0.1)


def test_the_exported_form_computes_the_same(model):
    model.eval()
    x = next(batches())
    with torch.no_grad():
        exportable = model.for_export(model.encode(x).mean(dim=0), prune=False)
        assert exportable.active == list(range(LATENT_DIM))
        torch.testing.assert_close(exportable.model.encode(x), model.encode(x))
        torch.testing.assert_close(exportable.model.decode(model.encode(x)), model.decode(model.encode(x)))
