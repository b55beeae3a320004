"""Our networks as pythae takes them, for comparisons on equal ones."""

from __future__ import annotations

from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor, nn


class Encoder(BaseEncoder):
    """An encoder of ours."""

    def __init__(self, network: nn.Module) -> None:
        nn.Module.__init__(self)
        self.network = network

    def forward(self, x: Tensor) -> ModelOutput:
        return ModelOutput(embedding=self.network(x))


class Decoder(BaseDecoder):
    """A decoder of ours."""

    def __init__(self, network: nn.Module) -> None:
        nn.Module.__init__(self)
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z))
