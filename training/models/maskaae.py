"""MaskAAE: an adversarial auto-encoder that masks its spurious latent dimensions (UAI 2020, arXiv 1912.04564)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from rae_serve.errors import RunError
from training.autoencoder import Autoencoder, Pruning, Update
from training.losses import binary_cross_entropy, gradient_penalty
from training.networks import ImageShape, conv_decoder, conv_encoder, mlp, mlp_decoder, mlp_encoder
from training.optimizers import TensorFlowRMSprop
from training.priors.standard_normal import StandardNormal

ACTIVE = 0.1  # a dimension is active where its α is at least this
# Deviation of the codes below which, at the end, a dimension has lost the prior's. To stretch those of 0.6 or 0.7 as
# well made digits worse (docs/evaluation.md).
NARROW = 0.5
LEAST_DEVIATION = 1e-3  # what stretches codes further would stretch their rounding
PUBLISHED_DIM = 48  # m of the published settings for MNIST
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class MaskAAE(Autoencoder):
    """An AAE with a mask α = 1 − exp(−M), M ≥ 0, on its latents: D and C see α⊙E(x), the prior is α⊙n.

    Latents are E(x), unmasked, and match n ~ N(0, I); `decode` masks them. Defaults are the published settings
    for MNIST. The schedule is in fractions, so that it shrinks with the run: `warmup`, ours, is the part of the run
    before the mask begins to move (a mask that outruns its autoencoder closes on dimensions which that would have
    come to need), and `period`, R of the paper, is a part of what follows. With `masked` off it is the AAE of the
    same critic. `weight_decay`, ours too, is of the autoencoder's update; TensorFlowRMSprop says how.

    `variance_penalty` is of the mean over dimensions where m is 48, as published. From other m a dimension weighs the
    same, not 1/m: the fewer there are, the harder a mean bears on each, and what stayed open would follow m.

    Networks for other data than MNIST are unknown; `network = "conv"` takes FlexAE's, the decoder without batch norm.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        latent_dim: PositiveInt = PUBLISHED_DIM,
        masked: bool = True,
        network: Literal["mlp", "conv"] = "mlp",
        filters: PositiveInt = 64,
        hidden: PositiveInt = 1024,
        layers: PositiveInt = 4,
        critic_hidden: PositiveInt = 1024,
        critic_layers: PositiveInt = 4,
        critic_steps: PositiveInt = 5,
        penalty: NonNegativeFloat = 10.0,
        variance_penalty: NonNegativeFloat = 100.0,
        mask_reconstruction: NonNegativeFloat = 1000.0,
        polarisation_cap: NonNegativeFloat = 2048.0,
        period: PositiveFloat = 0.0108,
        warmup: Fraction = 0.0,
        autoencoder_lr: PositiveFloat = 5e-4,
        critic_lr: PositiveFloat = 1e-4,
        encoder_lr: PositiveFloat = 1e-4,
        mask_lr: PositiveFloat = 5e-4,
        weight_decay: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__()
        if network == "mlp":
            self.encoder = mlp_encoder(image_shape, latent_dim, hidden, layers)
            self.decoder = mlp_decoder(image_shape, latent_dim, hidden, layers)
        else:
            self.encoder = conv_encoder(image_shape, latent_dim, filters, hidden)
            # A batch norm would undo any factor that all of α share, so that nothing would keep the mask open.
            self.decoder = conv_decoder(image_shape, latent_dim, filters, hidden, normalised=False)
        self.critic = mlp(latent_dim, 1, critic_hidden, critic_layers)
        self.prior = StandardNormal(latent_dim)
        self.depth = nn.Parameter(5.0 * torch.rand(latent_dim), requires_grad=masked)  # M of the paper
        self.masked = masked
        self.critic_steps = critic_steps
        self.penalty = penalty
        self.variance_penalty = variance_penalty
        self.mask_reconstruction = mask_reconstruction
        self.polarisation_cap = polarisation_cap
        self.period = period
        self.warmup = warmup
        self.learning_rates = {
            "autoencoder": autoencoder_lr,
            "critic": critic_lr,
            "encoder": encoder_lr,
            "mask": mask_lr,
        }
        self.weight_decay = weight_decay

    @property
    def mask(self) -> Tensor:
        """α of every dimension, [m], from 0 to 1."""
        return 1.0 - torch.exp(-self.depth) if self.masked else torch.ones_like(self.depth)

    @property
    def active(self) -> list[int]:
        """The dimensions that the mask leaves open."""
        return torch.nonzero(self.mask >= ACTIVE).flatten().tolist()

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        parameters = {
            "autoencoder": [*self.encoder.parameters(), *self.decoder.parameters()],
            "critic": self.critic.parameters(),
            "encoder": self.encoder.parameters(),
            "mask": [self.depth],
        }
        if not self.masked:
            del parameters["mask"]
        return {
            name: TensorFlowRMSprop(
                parameters[name],
                lr=self.learning_rates[name],
                weight_decay=self.weight_decay if name == "autoencoder" else 0.0,
            )
            for name in parameters
        }

    def rate(self, optimizer: str, progress: float) -> float:
        """At 5R autoencoder and mask slow down to a fifth.

        The authors scale the loss instead, which RMSProp all but ignores.
        """
        late = self._mask_progress(progress) >= 5.0 * self.period
        return 0.2 if late and optimizer in ("autoencoder", "mask") else 1.0

    def polarisation(self, progress: float) -> float:
        """The weight c of Σ|α(1 − α)|: 2/m, doubled every 4R, up to its cap."""
        doublings = int(self._mask_progress(progress) / (4.0 * self.period))
        # A short period comes to more doublings than a float holds.
        return min(2.0 / len(self.depth) * 2.0 ** min(doublings, 1000), self.polarisation_cap)

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        x = next(batches)
        codes = self.encode(x)
        yield (
            "autoencoder",
            {
                "reconstruction": binary_cross_entropy(self.decode(codes), x),
                "variance": self.variance_penalty * self._spurious_variance(codes),
            },
        )
        for _ in range(self.critic_steps):
            codes = self.codes(next(batches))
            mask = self.mask.detach()
            real, fake = mask * self.prior.noise(len(codes)), mask * codes  # the prior plays "real" here
            yield (
                "critic",
                {
                    "wasserstein": self.critic(fake).mean() - self.critic(real).mean(),
                    "penalty": self.penalty * gradient_penalty(self.critic, real, fake),
                },
            )
        codes = self.codes(next(batches), gradient=True)
        yield "encoder", {"adversarial": -self.critic(self.mask.detach() * codes).mean()}
        if self.masked and progress >= self.warmup:
            yield "mask", self._mask_terms(next(batches), progress)
            with torch.no_grad():
                self.depth.clamp_(min=0.0)

    @torch.no_grad()
    def finish(self, batches: Iterator[Tensor]) -> None:
        """Stretch the codes of the active dimensions that have lost the prior's variance, and undo it in the decoder.

        Ours. A dimension that the mask leaves half open can end with codes far narrower than N(0, 1), for the critic
        sees α times them; generations are then ruined, not reconstructions. With E's row over their deviation σ and
        D's column times σ every image is reconstructed as before, and the prior fits the codes.
        """
        if not self.masked:
            return
        codes = torch.cat([self.codes(next(batches)) for _ in range(50)])  # thousands: σ within a hundredth or two
        mean, deviation = codes.mean(dim=0), codes.std(dim=0)
        narrow = [i for i in self.active if deviation[i] < NARROW]
        mean, deviation = mean[narrow], deviation[narrow].clamp(min=LEAST_DEVIATION)
        last, first = self.encoder[-1], self.decoder[0]
        first.bias += first.weight[:, narrow] @ (self.mask[narrow] * mean)
        first.weight[:, narrow] *= deviation
        last.weight[narrow] /= deviation[:, None]
        last.bias[narrow] = (last.bias[narrow] - mean) / deviation

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(self.mask * latents)

    def images(self, latents: Tensor, *, gradient: bool = False) -> Tensor:
        return super().images(self.mask * latents, gradient=gradient)

    def diagnostics(self) -> dict[str, Any]:
        """The number of active dimensions, and α of each."""
        if not self.masked:
            return {}
        return {"active": len(self.active), "mask": [round(alpha, 4) for alpha in self.mask.tolist()]}

    def whole(self) -> Pruning:
        return replace(super().whole(), mask=self.mask.tolist())

    def prune(self, mean: Tensor) -> Pruning:
        """The same model on its active dimensions S alone; `mean` [m] is of the codes.

        The encoder keeps rows S of its last layer, the decoder columns S of its first, with α folded in; what
        the dropped dimensions contribute on average goes into its bias, so no mask is left.
        """
        active = self.active
        if not active:
            raise RunError(
                "the mask has closed every dimension, which leaves nothing to export; --best takes the checkpoint "
                "with the least error on held-out images"
            )
        dropped = [i for i in range(len(self.depth)) if i not in active]
        pruned = copy.deepcopy(self)
        last, first = pruned.encoder[-1], pruned.decoder[0]
        with torch.no_grad():
            first.bias += first.weight[:, dropped] @ (self.mask * mean)[dropped]
            first.weight = nn.Parameter((first.weight * self.mask)[:, active].contiguous())
            last.weight, last.bias = nn.Parameter(last.weight[active]), nn.Parameter(last.bias[active])
        first.in_features = last.out_features = len(active)
        pruned.prior = StandardNormal(len(active))
        pruned.masked, pruned.depth = False, nn.Parameter(torch.ones(len(active)))
        return Pruning(pruned, active, self.mask.tolist())

    def _mask_terms(self, x: Tensor, progress: float) -> dict[str, Tensor]:
        codes, noise = self.codes(x), self.prior.noise(len(x))
        mask = self.mask
        distance = self.critic(mask * codes).mean() - self.critic(mask * noise).mean()
        return {
            "reconstruction": self.mask_reconstruction * binary_cross_entropy(self.images(codes, gradient=True), x),
            "adversarial": (1.0 - distance).square(),
            "polarisation": self.polarisation(progress) * (mask * (1.0 - mask)).abs().sum(),
        }

    def _spurious_variance(self, codes: Tensor) -> Tensor:
        """Σ_i mean_B (mean_B z_i − z_i)² · exp(−10α_i²) / 48: the unmasked codes' variance where the mask closes."""
        deviation = (codes.mean(dim=0) - codes).square().mean(dim=0)
        return (deviation * torch.exp(-10.0 * self.mask.detach().square())).sum() / PUBLISHED_DIM

    def _mask_progress(self, progress: float) -> float:
        return max(0.0, (progress - self.warmup) / (1.0 - self.warmup))
