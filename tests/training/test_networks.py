from __future__ import annotations

import pytest
import torch
from torch import nn

from rae_serve.errors import InvalidInput
from training.networks import conv_critic, conv_decoder, conv_encoder, mlp, mlp_decoder, mlp_encoder

SHAPE = (3, 8, 12)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [layer.weight for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def test_shapes_in_and_out() -> None:
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
    network = conv_encoder(SHAPE, 5, 4, 16)
    torch.manual_seed(0)
    expected = [
        nn.Conv2d(3, 4, 4, stride=2, padding=1).weight,
        nn.Conv2d(4, 8, 4, stride=2, padding=1).weight,
        nn.Linear(8 * 2 * 3, 16).weight,
        nn.Linear(16, 5).weight,
    ]
    assert all(torch.equal(one, other) for one, other in zip(weights(network), expected, strict=True))


def test_the_names_in_an_encoders_state_are_those_of_its_checkpoints() -> None:
    names = {name.split(".")[0] for name in conv_encoder(SHAPE, 5, 4, 16).state_dict()}
    assert names == {"0", "2", "3", "6", "7", "9"}


def test_an_encoder_without_batch_norm_has_the_same_layers_and_weights() -> None:
    normalised = conv_encoder(SHAPE, 5, 4, 16)
    torch.manual_seed(0)
    bare = conv_encoder(SHAPE, 5, 4, 16, normalised=False)
    kept = [type(layer) for layer in normalised if not isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [type(layer) for layer in bare] == kept
    assert all(torch.equal(one, other) for one, other in zip(weights(bare), weights(normalised), strict=True))


def test_an_mlps_activation_follows_every_hidden_layer() -> None:
    assert [type(layer) for layer in mlp(3, 2, 8, 2)] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    smooth = mlp(3, 2, 8, 2, activation=lambda: nn.LeakyReLU(0.2))
    assert [type(layer) for layer in smooth] == [nn.Linear, nn.LeakyReLU, nn.Linear, nn.LeakyReLU, nn.Linear]
    assert smooth[1] is not smooth[3]


def test_an_mlps_activation_does_not_change_its_weights() -> None:
    plain = mlp(3, 2, 8, 2)
    torch.manual_seed(0)
    assert all(
        torch.equal(one, other)
        for one, other in zip(weights(plain), weights(mlp(3, 2, 8, 2, activation=nn.SiLU)), strict=True)
    )
