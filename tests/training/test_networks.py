from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rae_serve.errors import InvalidInput
from training.networks import (
    NORM_MOMENTUM,
    BatchNorm1d,
    BatchNorm2d,
    conv_critic,
    conv_decoder,
    conv_encoder,
    count_stages,
    mlp,
    mlp_decoder,
    mlp_encoder,
)

SHAPE = (3, 8, 12)


def seeded(build: Callable[..., nn.Module], *arguments: object, **keywords: object) -> nn.Module:
    torch.manual_seed(0)
    return build(*arguments, **keywords)


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [layer.weight for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def equal(tensors: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(tensors, others, strict=True))


def convolutions(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.Conv2d) for layer in network.modules())


def kinds(network: nn.Module) -> list[type[nn.Module]]:
    return [type(layer) for layer in network.children()]


def test_shapes_of_input_and_output() -> None:
    x, z = torch.rand(2, *SHAPE), torch.randn(2, 5)
    for encoder in (conv_encoder(SHAPE, 5, 4, 16), mlp_encoder(SHAPE, 5, 16, 2)):
        assert encoder(x).shape == (2, 5)
    for decoder in (conv_decoder(SHAPE, 5, 4, 16), mlp_decoder(SHAPE, 5, 16, 2)):
        assert decoder(z).shape == x.shape
    assert conv_critic(SHAPE, 4, 16)(x).shape == (2, 1)


def test_sides_that_are_no_multiples_of_4_are_an_error() -> None:
    with pytest.raises(InvalidInput, match="image: 8 × 10 pixels: height and width must be multiples of 4"):
        conv_encoder((1, 8, 10), 5, 4, 16)


def test_an_encoder_draws_its_weights_layer_by_layer() -> None:
    network = seeded(conv_encoder, SHAPE, 5, 4, 16)
    torch.manual_seed(0)
    expected = [
        nn.Conv2d(3, 4, 4, stride=2, padding=1).weight,
        nn.Conv2d(4, 8, 4, stride=2, padding=1).weight,
        nn.Linear(8 * 2 * 3, 16).weight,
        nn.Linear(16, 5).weight,
    ]
    assert equal(weights(network), expected)


def test_an_encoders_tensors_have_the_names_that_checkpoints_have() -> None:
    names = {name.split(".")[0] for name in conv_encoder(SHAPE, 5, 4, 16).state_dict()}
    assert names == {"0", "2", "3", "6", "7", "9"}


def test_an_encoder_without_batch_norm_has_the_same_other_layers_and_weights() -> None:
    normalised = seeded(conv_encoder, SHAPE, 5, 4, 16)
    bare = seeded(conv_encoder, SHAPE, 5, 4, 16, normalised=False)
    assert kinds(bare) == [
        kind for kind in kinds(normalised) if not issubclass(kind, nn.modules.batchnorm._BatchNorm)
    ]
    assert equal(weights(bare), weights(normalised))


@pytest.mark.parametrize("shape", [(32, 6), (32, 6, 5, 4)])
def test_the_statistics_of_a_batch_norm_are_means_of_few_batches_and_then_decay_by_a_hundredth(shape) -> None:
    ours, torchs = (BatchNorm1d, nn.BatchNorm1d) if len(shape) == 2 else (BatchNorm2d, nn.BatchNorm2d)
    norm, reference = ours(6, momentum=NORM_MOMENTUM), torchs(6)
    batches = 3.0 + 2.0 * torch.randn(130, *shape)
    assert all(torch.allclose(norm(batch), reference(batch), atol=1e-6) for batch in batches[:100])
    variances, means = torch.var_mean(batches.transpose(1, 2).flatten(2), dim=2)  # of each batch and feature
    assert torch.allclose(norm.running_mean, means[:100].mean(0), atol=1e-5)
    assert torch.allclose(norm.running_var, variances[:100].mean(0), atol=1e-4)
    before = norm.running_mean.clone()
    norm(batches[100])
    assert torch.allclose(norm.running_mean, 0.99 * before + 0.01 * means[100], atol=1e-3)
    norm.track_running_stats = False
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    norm(batches[101])
    assert all(torch.equal(value, state[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (8, 8, 1),
        (13, 13, 1),
        (28, 28, 2),
        (32, 32, 2),
        (36, 36, 2),
        (64, 64, 3),
        (64, 20, 1),
        (128, 128, 4),
        (256, 256, 5),
    ],
)
def test_as_many_stages_as_leave_seven_pixels_a_side(height, width, expected) -> None:
    assert count_stages((1, height, width), "auto") == expected
    assert count_stages((1, height, width), 3) == 3
    if height % 2 == 0:
        x = torch.rand(2, 1, height, width)
        latents = conv_encoder((1, height, width), 3, 2, 4, stages="auto")(x)
        assert conv_decoder((1, height, width), 3, 2, 4, stages="auto")(latents).shape == x.shape
        assert convolutions(conv_encoder((1, height, width), 3, 2, 4, stages="auto")) == expected


def test_an_activation_follows_every_hidden_layer_of_an_mlp() -> None:
    assert kinds(mlp(3, 2, 8, 2)) == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    leaky = mlp(3, 2, 8, 2, activation=lambda: nn.LeakyReLU(0.2))
    assert kinds(leaky) == [nn.Linear, nn.LeakyReLU, nn.Linear, nn.LeakyReLU, nn.Linear]
    assert leaky[1] is not leaky[3]


def test_an_activation_does_not_change_the_weights_of_an_mlp() -> None:
    plain, smooth = seeded(mlp, 3, 2, 8, 2), seeded(mlp, 3, 2, 8, 2, activation=nn.SiLU)
    assert equal(weights(plain), weights(smooth))
