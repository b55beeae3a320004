"""The keys `precision` and `compile`, on every model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from rae_serve.errors import InvalidInput
from tests.training.variants import VARIANTS, batches, build
from training import acceleration
from training import recipe as recipes
from training.autoencoder import Autoencoder

CPU = torch.device("cpu")
COMPILED = {variant for variant, (model, _) in VARIANTS.items() if model != "injflow"} - {"rae-gradient-penalty"}


def accelerated(model: Autoencoder, key: str) -> Autoencoder:
    """A copy of a model, faster by one key."""
    model = copy.deepcopy(model)
    acceleration.accelerate(model, recipes.load("rae-digits", [key]), CPU)
    return model


def first_terms(model: Autoencoder) -> dict[str, Tensor]:
    """The terms of the first update, whose gradients are then in the parameters."""
    torch.manual_seed(0)
    model.train()
    _, terms = next(iter(model.updates(batches(), 0.5)))
    torch.stack(list(terms.values())).sum().backward()
    return dict(terms)


@pytest.mark.parametrize("variant", VARIANTS)
def test_layers_compute_in_bfloat16_while_they_train(variant):
    model = build(variant)
    fast = accelerated(model, "precision=bfloat16")
    dtypes = []
    for network in (fast.encoder, fast.decoder):
        layer = next(part for part in network.modules() if isinstance(part, torch.nn.Linear))
        layer.register_forward_hook(lambda _, inputs, output: dtypes.append(output.dtype))
    exact, terms = first_terms(model), first_terms(fast)
    assert dtypes
    assert set(dtypes) == {torch.bfloat16}
    for name, value in exact.items():
        assert terms[name].dtype == torch.float32
        assert terms[name].item() == pytest.approx(value.item(), rel=0.1, abs=0.1), name
    for (name, parameter), (_, other) in zip(fast.named_parameters(), model.named_parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    x = next(batches())
    fast.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(fast.eval().decode(fast.encode(x)), model.eval().decode(model.encode(x)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
@pytest.mark.parametrize("device_has_bfloat16", [False, True])
def test_the_perceptual_distance_and_the_layers_have_one_precision(monkeypatch, precision, device_has_bfloat16):
    monkeypatch.setattr(acceleration, "_has_bfloat16", lambda device: device_has_bfloat16)
    recipe = recipes.load("rae-digits", [f"precision={precision}", "perceptual=60", "filters=4", "hidden=8"])
    torch.manual_seed(0)
    model = recipe.build((1, 8, 8)).train()
    x = torch.rand(4, 1, 8, 8)
    before = [model.encode(x), model.perceptual(x.flip(3), x)]
    acceleration.accelerate(model, recipe, CPU)
    after = [model.encode(x), model.perceptual(x.flip(3), x)]
    exact = precision == "float32" or (precision == "auto" and not device_has_bfloat16)
    for one, other in zip(before, after, strict=True):
        assert other.dtype == torch.float32
        assert torch.allclose(one, other, rtol=0.05, atol=0.05)
        assert torch.equal(one, other) == exact


def test_a_cpu_has_bfloat16_if_its_capabilities_say_so(monkeypatch):
    for capabilities, expected in [
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"amx_bf16": False, "avx512_bf16": True}, True),
        ({"amx_bf16": False, "avx512_bf16": False}, False),
        ({}, False),
    ]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert acceleration._has_bfloat16(CPU) is expected


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler looks at it
@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_networks_have_the_same_losses(monkeypatch, variant):
    monkeypatch.setattr(acceleration, "_BACKEND", "aot_eager")  # compiles in no time
    model = build(variant)
    if variant not in COMPILED:
        with pytest.raises(InvalidInput, match="derivatives of derivatives"):
            accelerated(model, "compile=true")
        return
    fast = accelerated(model, "compile=true")
    exact, terms = first_terms(model), first_terms(fast)
    for name, value in exact.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5), name


def test_a_machine_without_a_compiler_is_told(monkeypatch):
    monkeypatch.setattr(acceleration.shutil, "which", lambda name: None)
    with pytest.raises(InvalidInput, match=r"needs a C\+\+ compiler"):
        accelerated(build("vae"), "compile=true")
