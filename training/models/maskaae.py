"""MaskAAE: an adversarial auto-encoder that masks the latent dimensions it does not need (UAI 2020)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from rae_serve.errors import RunError
from training.autoencoder import Exportable
from training.losses import binary_cross_entropy
from training.models.aae import AAE, PUBLISHED_DIM
from training.networks import ImageShape
from training.optimizers import TensorFlowRMSprop, Update

ACTIVE: Final = 0.1  # a dimension is active where its α is at least this
# Latents of an active dimension with a smaller standard deviation than this no longer match the prior.
NARROW: Final = 0.5
LEAST_DEVIATION: Final = 1e-3  # narrower latents consist of rounding errors, which stretching would enlarge
_FINISHING_BATCHES: Final = 50  # thousands of latents, whose deviation is then known within one or two percent


class MaskAAE(AAE):
    """An AAE with a mask α = 1 − exp(−M), M ≥ 0: decoder and critic see α⊙E(x), and the prior is α⊙n, n ~ N(0, I).

    https://arxiv.org/abs/1912.04564. In this class, latents are E(x), not masked, and match N(0, I); `decode` masks
    them. The defaults are the published settings for MNIST; the published schedule is `period` = R / steps, as in the
    recipe maskaae-mnist. The schedule is in fractions of the run, to fit a run of any length.

    Args:
        latent_dim: Dimensions m of the latent space before masking. Start with more than the data need.
        period: R of the paper, as a fraction of the run after the warm-up. The weight of the polarising term doubles
            every 4R, and at 5R the learning rates of the auto-encoder and the mask fall to a fifth. Lower values
            settle the mask sooner.
        warmup: Fraction of the run before the mask begins to move. Ours: a mask that moves too early closes
            dimensions that the auto-encoder needs later.
        variance_penalty: Weight of the variance of the latents in closed dimensions: their sum divided by 48,
            whatever m is. Higher values also shrink the latents of half-open dimensions, and samples get worse.
        mask_reconstruction: Weight of the reconstruction in the mask's update. Higher values keep more dimensions.
        polarisation_cap: Largest weight of the term that pushes each α to 0 or 1.
        mask_lr: Learning rate of the mask.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        variance_penalty: NonNegativeFloat = 100.0,
        mask_reconstruction: NonNegativeFloat = 1000.0,
        polarisation_cap: NonNegativeFloat = 2048.0,
        mask_lr: PositiveFloat = 5e-4,
        **aae: Any,
    ) -> None:
        super().__init__(image_shape, **aae)
        self.depth = nn.Parameter(5.0 * torch.rand(self.prior.latent_dim))  # M of the paper
        self.variance_penalty = variance_penalty
        self.mask_reconstruction = mask_reconstruction
        self.polarisation_cap = polarisation_cap
        self.learning_rates["mask"] = mask_lr
        self.image_shape = image_shape
        self.aae = aae

    @property
    def mask(self) -> Tensor:
        """α of every dimension, [m], from 0 to 1."""
        return 1.0 - torch.exp(-self.depth)

    @property
    def active(self) -> list[int]:
        """The dimensions whose α is at least ACTIVE."""
        return torch.nonzero(self.mask >= ACTIVE).flatten().tolist()

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return super().optimizers() | {"mask": TensorFlowRMSprop([self.depth], self.learning_rates["mask"])}

    def rate(self, optimizer: str, progress: float) -> float:
        """Return a factor on an optimiser's learning rate: the mask slows down together with the auto-encoder."""
        return super().rate("autoencoder" if optimizer == "mask" else optimizer, progress)

    def polarisation(self, progress: float) -> float:
        """Return the weight c of Σ|α(1 − α)|: 2/m at first, doubled every 4R up to its cap."""
        doublings = int(self.schedule_progress(progress) / (4.0 * self.period))
        # A short period gives more doublings than a float can hold.
        return min(2.0 / len(self.depth) * 2.0 ** min(doublings, 1000), self.polarisation_cap)

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        yield from super().updates(batches, progress)
        if progress >= self.warmup:
            yield "mask", self._mask_terms(next(batches), progress)
            with torch.no_grad():
                self.depth.clamp_(min=0.0)

    def autoencoder_terms(self, x: Tensor, latents: Tensor) -> dict[str, Tensor]:
        reconstruction = super().autoencoder_terms(x, latents)
        return reconstruction | {"variance": self.variance_penalty * self._spurious_variance(latents)}

    def critic_input(self, latents: Tensor) -> Tensor:
        return self.mask.detach() * latents

    @torch.no_grad()
    def finish(self, batches: Iterator[Tensor]) -> None:
        """Stretch the narrow latents of active dimensions to the prior's variance, and undo it in the decoder.

        Ours. The critic sees α times the latents, so those of a half-open dimension can stay far narrower than
        N(0, 1). Then generated images are bad although reconstructions are good. Dividing the encoder's row by the
        standard deviation σ and multiplying the decoder's column by σ leaves reconstructions as they are, and the
        latents match the prior.
        """
        latents = torch.cat([self.codes(next(batches)) for _ in range(_FINISHING_BATCHES)])
        mean, deviation = latents.mean(dim=0), latents.std(dim=0)
        narrow = [i for i in self.active if deviation[i] < NARROW]
        mean, deviation = mean[narrow], deviation[narrow].clamp(min=LEAST_DEVIATION)
        last, first, _ = _latent_layers(self)
        first.bias.add_(first.weight[:, narrow] @ (self.mask[narrow] * mean))
        first.weight[:, narrow] *= deviation
        last.weight[narrow] /= deviation[:, None]
        last.bias[narrow] = (last.bias[narrow] - mean) / deviation

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(self.mask * latents)

    def diagnostics(self) -> dict[str, Any]:
        """Return the number of active dimensions, and α of every dimension."""
        return {"active": len(self.active), "mask": [round(alpha, 4) for alpha in self.mask.tolist()]}

    def for_export(self, mean: Tensor, *, prune: bool = True) -> Exportable:
        """Return an AAE of the active dimensions alone; all of them, with the mask, if a posthoc prior needs them.

        The encoder keeps the active rows of its last layer, and decoder and critic the active columns of their first,
        with α multiplied into them. What the other dimensions contribute on average goes into the bias.

        Raises:
            RunError: No dimension is active.
        """
        if not prune or self.posthoc:  # a posthoc prior was fitted to all dimensions
            return Exportable(self, list(range(len(self.depth))), self.mask.tolist())
        active = self.active
        if not active:
            raise RunError(
                "the mask has closed every dimension, so there is nothing to export; --best exports the checkpoint "
                "with the least error on held-out images instead"
            )
        parameters = self.aae | {"latent_dim": len(active)}
        pruned = AAE(self.image_shape, **parameters).train(self.training)
        pruned.encoder, pruned.decoder, pruned.critic = copy.deepcopy((self.encoder, self.decoder, self.critic))
        last, *readers = _latent_layers(pruned)
        last.weight, last.bias = nn.Parameter(last.weight[active]), nn.Parameter(last.bias[active])
        last.out_features = len(active)
        for reader in readers:
            self._fold_mask(reader, mean)
        return Exportable(pruned, active, self.mask.tolist(), ("aae", parameters))

    @torch.no_grad()
    def _fold_mask(self, layer: nn.Linear, mean: Tensor) -> None:
        """Make a layer that takes masked latents take the active ones alone, the others being at their mean [m]."""
        dropped = [i for i in range(len(self.depth)) if i not in self.active]
        layer.bias.add_(layer.weight[:, dropped] @ (self.mask * mean)[dropped])
        layer.weight = nn.Parameter((layer.weight * self.mask)[:, self.active].contiguous())
        layer.in_features = len(self.active)

    def _mask_terms(self, x: Tensor, progress: float) -> dict[str, Tensor]:
        latents, noise = self.codes(x), self.prior.noise(len(x))
        mask = self.mask
        distance = self.critic(mask * latents).mean() - self.critic(mask * noise).mean()
        return {
            "reconstruction": self.mask_reconstruction * binary_cross_entropy(self.images(latents, gradient=True), x),
            "adversarial": (1.0 - distance).square(),
            "polarisation": self.polarisation(progress) * (mask * (1.0 - mask)).abs().sum(),
        }

    def _spurious_variance(self, latents: Tensor) -> Tensor:
        """Return Σ_i mean_B (mean_B z_i − z_i)² · exp(−10α_i²) / 48, the variance in closed dimensions."""
        deviation = (latents.mean(dim=0) - latents).square().mean(dim=0)
        return (deviation * torch.exp(-10.0 * self.mask.detach().square())).sum() / PUBLISHED_DIM


def _latent_layers(model: AAE) -> list[nn.Linear]:
    """Return the encoder's last layer, and the first layers of decoder and critic, which take its latents."""
    layers = [model.encoder[-1], model.decoder[0], model.critic[0]]
    return [layer for layer in layers if isinstance(layer, nn.Linear)]
