"""MaskAAE: an adversarial auto-encoder that masks the latent dimensions it does not need (UAI 2020)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from rae_serve.errors import RunError
from training.autoencoder import Autoencoder, Exportable
from training.losses import binary_cross_entropy, critic_terms
from training.networks import ImageShape, conv_decoder, conv_encoder, mlp, mlp_decoder, mlp_encoder
from training.optimizers import TensorFlowRMSprop, Update
from training.priors.standard_normal import StandardNormal

ACTIVE: Final = 0.1  # a dimension is active where its α is at least this
# Latents of an active dimension with a smaller standard deviation than this no longer match the prior.
NARROW: Final = 0.5
LEAST_DEVIATION: Final = 1e-3  # narrower latents consist of rounding errors, which stretching would enlarge
PUBLISHED_DIM: Final = 48  # m of the published settings for MNIST
_FINISHING_BATCHES: Final = 50  # thousands of latents, whose deviation is then known within one or two percent
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class MaskAAE(Autoencoder):
    """An AAE with a mask α = 1 − exp(−M), M ≥ 0: decoder and critic see α⊙E(x), and the prior is α⊙n, n ~ N(0, I).

    https://arxiv.org/abs/1912.04564. In this class, latents are E(x), not masked, and match N(0, I); `decode` masks
    them. The defaults are the published settings for MNIST; the published schedule is `period` = R / steps, as in the
    recipe maskaae-mnist. The schedule is in fractions of the run, to fit a run of any length.

    Args:
        latent_dim: Dimensions m of the latent space before masking. Start with more than the data need.
        masked: Whether there is a mask. Without it, the model is an AAE with the same critic.
        network: Encoder and decoder: "mlp" as published for MNIST, or "conv" as FlexAE's, with no batch norm in the
            decoder. The authors' networks for other data are unknown.
        filters: Channels of the first convolution of "conv"; the second has twice as many.
        hidden: Width of the hidden layers of encoder and decoder.
        layers: Number of the hidden layers of "mlp".
        critic_hidden: Width of the critic's hidden layers.
        critic_layers: Number of the critic's hidden layers.
        critic_steps: Critic updates for each auto-encoder update.
        penalty: Weight of the critic's gradient penalty.
        variance_penalty: Weight of the variance of the latents in closed dimensions: their sum divided by 48,
            whatever m is. Higher values also shrink the latents of half-open dimensions, and samples get worse.
        mask_reconstruction: Weight of the reconstruction in the mask's update. Higher values keep more dimensions.
        polarisation_cap: Largest weight of the term that pushes each α to 0 or 1.
        period: R of the paper, as a fraction of the run after the warm-up. The weight of that term doubles every 4R,
            and at 5R the learning rates of the auto-encoder and the mask fall to a fifth. Lower values settle the
            mask sooner.
        warmup: Fraction of the run before the mask begins to move. Ours: a mask that moves too early closes
            dimensions that the auto-encoder needs later.
        autoencoder_lr: Learning rate of the reconstruction.
        critic_lr: Learning rate of the critic.
        encoder_lr: Learning rate by which the encoder follows the critic.
        mask_lr: Learning rate of the mask.
        weight_decay: Decoupled weight decay of the auto-encoder's update. Ours.
    """

    encoder: nn.Sequential
    decoder: nn.Sequential
    prior: StandardNormal

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
            # Batch norm would undo a factor that all α share, and then nothing would keep the mask open.
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
        """α of every dimension, [m], from 0 to 1; all 1 without a mask."""
        return 1.0 - torch.exp(-self.depth) if self.masked else torch.ones_like(self.depth)

    @property
    def active(self) -> list[int]:
        """The dimensions whose α is at least ACTIVE."""
        return torch.nonzero(self.mask >= ACTIVE).flatten().tolist()

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        rates = self.learning_rates
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        optimizers: dict[str, torch.optim.Optimizer] = {
            "autoencoder": TensorFlowRMSprop(autoencoder, rates["autoencoder"], weight_decay=self.weight_decay),
            "critic": TensorFlowRMSprop(self.critic.parameters(), rates["critic"]),
            "encoder": TensorFlowRMSprop(self.encoder.parameters(), rates["encoder"]),
        }
        if self.masked:
            optimizers["mask"] = TensorFlowRMSprop([self.depth], rates["mask"])
        return optimizers

    def rate(self, optimizer: str, progress: float) -> float:
        """Return 1, and from 5R on a fifth for the auto-encoder and the mask.

        The authors scale the loss instead, but the scale of a loss hardly changes the steps of RMSProp.
        """
        late = self._mask_progress(progress) >= 5.0 * self.period
        return 0.2 if late and optimizer in ("autoencoder", "mask") else 1.0

    def polarisation(self, progress: float) -> float:
        """Return the weight c of Σ|α(1 − α)|: 2/m at first, doubled every 4R up to its cap."""
        doublings = int(self._mask_progress(progress) / (4.0 * self.period))
        # A short period gives more doublings than a float can hold.
        return min(2.0 / len(self.depth) * 2.0 ** min(doublings, 1000), self.polarisation_cap)

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        x = next(batches)
        latents = self.encode(x)
        yield (
            "autoencoder",
            {
                "reconstruction": binary_cross_entropy(self.decode(latents), x),
                "variance": self.variance_penalty * self._spurious_variance(latents),
            },
        )
        for _ in range(self.critic_steps):
            latents = self.codes(next(batches))
            mask = self.mask.detach()
            # Unlike in FlexAE, the prior is "real".
            real, fake = mask * self.prior.noise(len(latents)), mask * latents
            yield "critic", critic_terms(self.critic, real, fake, self.penalty)
        latents = self.codes(next(batches), gradient=True)
        yield "encoder", {"adversarial": -self.critic(self.mask.detach() * latents).mean()}
        if self.masked and progress >= self.warmup:
            yield "mask", self._mask_terms(next(batches), progress)
            with torch.no_grad():
                self.depth.clamp_(min=0.0)

    @torch.no_grad()
    def finish(self, batches: Iterator[Tensor]) -> None:
        """Stretch the narrow latents of active dimensions to the prior's variance, and undo it in the decoder.

        Ours. The critic sees α times the latents, so those of a half-open dimension can stay far narrower than
        N(0, 1). Then generated images are bad although reconstructions are good. Dividing the encoder's row by the
        standard deviation σ and multiplying the decoder's column by σ leaves reconstructions as they are, and the
        latents match the prior.
        """
        if not self.masked:
            return
        latents = torch.cat([self.codes(next(batches)) for _ in range(_FINISHING_BATCHES)])
        mean, deviation = latents.mean(dim=0), latents.std(dim=0)
        narrow = [i for i in self.active if deviation[i] < NARROW]
        mean, deviation = mean[narrow], deviation[narrow].clamp(min=LEAST_DEVIATION)
        last, first = self._latent_layers
        first.bias.add_(first.weight[:, narrow] @ (self.mask[narrow] * mean))
        first.weight[:, narrow] *= deviation
        last.weight[narrow] /= deviation[:, None]
        last.bias[narrow] = (last.bias[narrow] - mean) / deviation

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(self.mask * latents)

    def diagnostics(self) -> dict[str, Any]:
        """Return the number of active dimensions, and α of every dimension."""
        if not self.masked:
            return {}
        return {"active": len(self.active), "mask": [round(alpha, 4) for alpha in self.mask.tolist()]}

    def for_export(self, mean: Tensor, *, prune: bool = True) -> Exportable:
        """Return the model on its active dimensions alone, without a mask.

        The encoder keeps the active rows of its last layer, and the decoder the active columns of its first, with α
        multiplied into them. What the other dimensions contribute on average goes into the decoder's bias.

        Raises:
            RunError: No dimension is active.
        """
        if not prune or not self.masked or self.posthoc:  # a posthoc prior was fitted to all dimensions
            return Exportable(self, list(range(len(self.depth))), self.mask.tolist())
        active = self.active
        if not active:
            raise RunError(
                "the mask has closed every dimension, so there is nothing to export; --best exports the checkpoint "
                "with the least error on held-out images instead"
            )
        dropped = [i for i in range(len(self.depth)) if i not in active]
        pruned = copy.deepcopy(self)
        last, first = pruned._latent_layers
        with torch.no_grad():
            first.bias.add_(first.weight[:, dropped] @ (self.mask * mean)[dropped])
            first.weight = nn.Parameter((first.weight * self.mask)[:, active].contiguous())
            last.weight, last.bias = nn.Parameter(last.weight[active]), nn.Parameter(last.bias[active])
        first.in_features = last.out_features = len(active)
        pruned.prior = StandardNormal(len(active))
        pruned.masked, pruned.depth = False, nn.Parameter(torch.ones(len(active)))
        return Exportable(pruned, active, self.mask.tolist())

    @property
    def _latent_layers(self) -> tuple[nn.Linear, nn.Linear]:
        """The encoder's last layer, which makes the latents, and the decoder's first, which takes them."""
        last, first = self.encoder[-1], self.decoder[0]
        assert isinstance(last, nn.Linear)
        assert isinstance(first, nn.Linear)
        return last, first

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

    def _mask_progress(self, progress: float) -> float:
        return max(0.0, (progress - self.warmup) / (1.0 - self.warmup))
