"""Wrap our networks for pythae, so that benchmarks compare trainers on the same networks."""

from __future__ import annotations

from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor, nn


class Encoder(BaseEncoder):
    """An encoder for pythae's models that runs one of our networks."""

    def __init__(self, network: nn.Module) -> None:
        nn.Module.__init__(self)
        self.network = network

    def forward(self, x: Tensor) -> ModelOutput:
        return ModelOutput(embedding=self.network(x))


class GaussianEncoder(Encoder):
    """An encoder for pythae's variational models: our network gives means and log-variances, [B, 2m]."""

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_variance = self.network(x).chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """A decoder for pythae's models that runs one of our networks."""

    def __init__(self, network: nn.Module) -> None:
        nn.Module.__init__(self)
        self.network = network

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z))
