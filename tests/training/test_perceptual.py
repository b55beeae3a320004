"""The perceptual distance, and the term that every model takes from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool2d
from torchvision import models

from rae_serve.errors import InvalidInput
from tests.training.variants import SMALL, batches
from training import recipe as recipes
from training.evaluation.features.cifar10_network import Cifar10Network
from training.perceptual import PerceptualDistance


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of an AlexNet with random weights, without its large classifier."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    state = models.alexnet().state_dict()
    torch.save({name: value for name, value in state.items() if name.startswith("features.")}, path)
    return path


def by_hand(layers: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """LPIPS's equation 1 with w = 1, image by image and place by place."""
    total = 0.0
    for one, other in zip(layers, others, strict=True):
        for i in range(len(one)):
            places = one.shape[2] * one.shape[3]
            for y in range(one.shape[2]):
                for x in range(one.shape[3]):
                    a, b = one[i, :, y, x], other[i, :, y, x]
                    a = a / a.norm() if a.norm() else a
                    b = b / b.norm() if b.norm() else b
                    total += ((a - b) ** 2).sum().item() / places / len(one)
    return total


def test_the_distance_is_that_of_normalised_features():
    network, x = Cifar10Network.load(), torch.rand(2, 3, 32, 32)
    reconstruction = (x + 0.2 * torch.randn_like(x)).clamp(0, 1)

    def relus(images: torch.Tensor) -> list[torch.Tensor]:
        found = []
        with torch.no_grad():
            for layer in network.features:
                images = avg_pool2d(images, 2) if isinstance(layer, torch.nn.MaxPool2d) else layer(images)
                if isinstance(layer, torch.nn.ReLU):
                    found.append(images.clone())
        return found

    expected = by_hand(relus(reconstruction), relus(x))
    assert PerceptualDistance("cifar10")(reconstruction, x).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 40, 64), (1, 28, 28)])
@pytest.mark.parametrize("network", ["cifar10", "alexnet"])
def test_equal_images_have_no_distance_and_the_reconstruction_alone_gets_a_gradient(network, shape, alexnet):
    distance = PerceptualDistance(network, alexnet if network == "alexnet" else None)
    x = torch.rand(2, *shape, requires_grad=True)
    assert distance(x, x).item() == pytest.approx(0, abs=1e-5)
    reconstruction = torch.rand(2, *shape, requires_grad=True)
    found = distance(reconstruction, x)
    found.backward()
    assert found.item() > 0
    assert x.grad is None
    assert reconstruction.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("network", "content", "problem"),
    [
        ("cifar10", b"", "belongs to vgg16 and alexnet"),
        ("alexnet", b"", "does not give the state of torchvision's alexnet"),
        ("vgg16", "alexnet", "does not give the state of torchvision's vgg16"),
        ("alexnet", None, "does not give the state"),
    ],
)
def test_weights_that_cannot_be(network, content, problem, alexnet, tmp_path):
    path = alexnet if content == "alexnet" else tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=problem) as raised:
        PerceptualDistance(network, path)
    assert raised.value.field == "perceptual_weights"


@pytest.mark.parametrize("model", SMALL)
def test_every_model_adds_the_term_in_proportion_and_saves_nothing_of_it(model):
    def built(weight: float):
        torch.manual_seed(0)
        return recipes.check({"name": "x", "model": model, "steps": 1, "perceptual": weight, **SMALL[model]}).build(
            (1, 8, 8)
        )

    def terms(weight: float) -> dict[str, float]:
        trained = built(weight).train()
        torch.manual_seed(1)
        return {name: value.item() for name, value in next(trained.updates(batches(), 0.5))[1].items()}

    without, one, two = terms(0.0), terms(1.0), terms(2.0)
    assert set(one) - set(without) == {"perceptual"}
    assert one["perceptual"] > 0
    assert two["perceptual"] == pytest.approx(2 * one["perceptual"], rel=1e-5)
    if model == "rae_gan":  # the weight of its adversarial term follows the gradient of all others
        assert without.pop("adversarial") != one["adversarial"]
    assert {name: one[name] for name in without} == without
    assert built(1.0).state_dict().keys() == built(0.0).state_dict().keys()
