from __future__ import annotations

import pytest
import torch

from rae_serve.errors import InvalidInput
from tests.training.variants import SHAPE, batches
from training import recipe as recipes
from training.models.rae import RAE
from training.optimizers import descend
from training.priors.mixture import Mixture

UNREGULARISED = {"latent_dim": 4, "filters": 4, "hidden": 8, "latent_penalty": 0.0, "weight_penalty": 0.0}


def terms(**settings: float) -> dict[str, float]:
    torch.manual_seed(0)
    ((_, found),) = RAE(SHAPE, **UNREGULARISED | settings).train().updates(batches(), 0.0)
    return {name: value.item() for name, value in found.items()}


def test_without_penalties_it_is_the_plain_auto_encoder():
    assert set(terms()) == {"reconstruction"}


@pytest.mark.parametrize("penalty", ["latent_penalty", "weight_penalty", "gradient_penalty"])
def test_each_penalty_adds_its_term_in_proportion(penalty):
    name = penalty.removesuffix("_penalty")
    one, two = terms(**{penalty: 1e-3}), terms(**{penalty: 2e-3})
    assert set(one) == {"reconstruction", name}
    assert two[name] == pytest.approx(2.0 * one[name], rel=1e-5)
    assert one["reconstruction"] == terms()["reconstruction"]


def test_the_weight_penalty_is_of_the_decoders_kernels():
    torch.manual_seed(0)
    model = RAE(SHAPE, **UNREGULARISED | {"weight_penalty": 1.0}).train()
    kernels = [w for name, w in model.decoder.named_parameters() if name.endswith("weight") and w.dim() > 1]
    ((_, found),) = model.updates(batches(), 0.0)
    assert found["weight"].item() == pytest.approx(sum(w.square().sum().item() for w in kernels), rel=1e-5)


def test_the_gradient_penalty_is_of_the_decoders_jacobian():
    torch.manual_seed(0)
    model = RAE(SHAPE, **UNREGULARISED | {"gradient_penalty": 1.0}).eval()
    x = next(batches())
    ((_, found),) = model.updates(iter([x]), 0.0)
    latents = model.encode(x).detach()
    expected = []
    for z in latents:  # in evaluation mode every image is on its own
        (jacobian,) = [torch.autograd.functional.jacobian(lambda z: model.decode(z[None]).square().sum(), z)]
        expected.append(jacobian)
    assert found["gradient"].item() == pytest.approx(torch.stack(expected).square().mean().item(), rel=1e-3)


def test_a_share_of_the_steps_has_the_gradient_penalty_with_as_much_more_weight():
    torch.manual_seed(0)
    model = RAE(SHAPE, **UNREGULARISED | {"gradient_penalty": 1e-3, "gradient_share": 0.25}).eval()
    x = next(batches())
    found = [dict(terms) for _ in range(400) for _, terms in model.updates(iter([x]), 0.0)]
    with_penalty = [terms["gradient"].item() for terms in found if "gradient" in terms]
    assert abs(len(with_penalty) - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5
    model.gradient_share = 1.0
    ((_, every_step),) = model.updates(iter([x]), 0.0)
    assert with_penalty == pytest.approx([4 * every_step["gradient"].item()] * len(with_penalty), rel=1e-5)


def test_the_latent_penalty_keeps_latents_small():
    def size(penalty: float) -> float:
        torch.manual_seed(0)
        model = RAE(SHAPE, **UNREGULARISED | {"latent_penalty": penalty}).train()
        optimizers, source = model.optimizers(), batches()
        for _ in range(100):
            for name, update in model.updates(source, 0.0):
                descend(optimizers[name], update)
        return model.codes(next(source)).square().mean().item()

    assert size(10.0) < 0.5 * size(0.0)


def test_spectral_norm_is_baked_into_the_exported_weights_to_the_bit():
    torch.manual_seed(0)
    model = RAE(SHAPE, **UNREGULARISED | {"spectral_norm": True}).train()
    model.posthoc = Mixture(4)
    optimizers, source, x = model.optimizers(), batches(), next(batches())
    for _ in range(100):
        for name, update in model.updates(source, 0.0):
            descend(optimizers[name], update)
    model.eval()
    plain = model.for_export(torch.zeros(4)).model
    assert torch.equal(plain.decode(plain.encode(x)), model.decode(model.encode(x)))
    assert not [name for name in plain.state_dict() if "parametrizations" in name]
    for network in (plain.encoder, plain.decoder):
        for layer in (network[0], network[-1 if network is plain.encoder else -2]):
            largest = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0].item()
            assert largest == pytest.approx(1.0, rel=0.05)


def test_a_recipe_without_a_prior_is_refused():
    with pytest.raises(InvalidInput, match="posthoc: must be given"):
        recipes.check({"name": "rae", "model": "rae", "steps": 1}).build(SHAPE)
