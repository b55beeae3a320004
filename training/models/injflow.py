"""InjFlow: a deterministic auto-encoder trained as a relaxed injective probability flow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import normalize

from training.autoencoder import Autoencoder
from training.networks import ImageShape, conv_decoder, conv_encoder
from training.optimizers import Update, adam
from training.priors.standard_normal import StandardNormal


class InjFlow(Autoencoder):
    """An auto-encoder whose decoder g is a flow from N(0, I) to the images' manifold, and whose encoder h inverts g.

    https://arxiv.org/abs/2002.08927. The loss is w·‖x − g(h(x))‖² + ½‖h(x)‖² + (m/2)·E_u ln ‖J u‖², where J is the
    decoder's Jacobian at h(x), and u is uniform on the unit sphere: one u for each image. The last two terms are an
    upper bound on −ln p(h(x)) + ½ ln det JᵀJ, the flow's negative log-likelihood, without constants.

    The volume term is unbounded below: with a small w, it falls without end while the decoder's images become all the
    same (https://arxiv.org/abs/2306.01843 describes this). It is in the metrics as autoencoder/volume; if it keeps
    falling while the error does not, raise w.

    Where the sources are silent: the authors publish no code, w, or networks' details. The encoder is FlexAE's with
    its batch norm. The decoder has none, because with batch norm an image's J would depend on the other images.

    Args:
        latent_dim: Dimensions m of the latent space.
        reconstruction_weight: w, the weight of the squared error, summed over pixels. Below 100 the decoder may
            collapse. Higher values make reconstructions sharper and generated images worse.
        filters: Channels of the first convolution; each further one has twice as many as the one before.
        stages: Convolutions in the encoder, and as many in the decoder; each halves or doubles the sides. 2 is as
            published; auto takes as many as leave 7 pixels a side, and avoids a pattern of squares in the images.
        hidden: Width of the dense layers of encoder and decoder.
        lr: Learning rate of Adam.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = 16,
        reconstruction_weight: PositiveFloat = 100.0,
        filters: PositiveInt = 64,
        stages: PositiveInt | Literal["auto"] = 2,
        hidden: PositiveInt = 1024,
        lr: PositiveFloat = 1e-3,
    ) -> None:
        super().__init__()
        self.encoder = conv_encoder(image_shape, latent_dim, filters, hidden, stages=stages)
        self.decoder = conv_decoder(image_shape, latent_dim, filters, hidden, stages=stages, normalised=False)
        self.prior = StandardNormal(latent_dim)
        self.reconstruction_weight = reconstruction_weight
        self.compiles = False
        self.lr = lr

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"autoencoder": adam([*self.encoder.parameters(), *self.decoder.parameters()], self.lr)}

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        x = next(batches)
        latents = self.encode(x)
        reconstruction, stretch = with_derivative(self.decode, latents, normalize(torch.randn_like(latents)))
        volume = 0.5 * latents.shape[1] * stretch.flatten(1).square().sum(dim=1).log().mean()
        yield (
            "autoencoder",
            {
                **self.squared_error_terms(reconstruction, x, self.reconstruction_weight),
                "latent": 0.5 * latents.square().sum(dim=1).mean(),
                "volume": volume,
            },
        )


def with_derivative(function: Callable[[Tensor], Tensor], inputs: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(x), and its derivative along u: J u, of the shape of f(x). Both can be differentiated further.

    Args:
        function: f.
        inputs: x.
        direction: u, of the shape of x.
    """
    with warnings.catch_warnings(), forward_ad.dual_level():
        # On its first use, torch's forward mode calls a function of torch that is deprecated.
        warnings.filterwarnings("ignore", r".*torch\.jit\.script", FutureWarning)
        value, derivative = forward_ad.unpack_dual(function(forward_ad.make_dual(inputs, direction)))
    assert derivative is not None
    return value, derivative
