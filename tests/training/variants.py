"""Every model in its variants, small, for the tests that drive them all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from training import recipe as recipes
from training.autoencoder import Autoencoder

SHAPE: Final = (1, 8, 8)
LATENT_DIM: Final = 4
_CONV: Final = {"latent_dim": LATENT_DIM, "filters": 4, "hidden": 8}
_GAME: Final = {"prior_hidden": 8, "critic_hidden": 8}

# The smallest settings of each model.
SMALL: Final[dict[str, dict[str, Any]]] = {
    "flexae": {**_CONV, **_GAME, "noise_dim": 6},
    "flexae_sr": {**_CONV, **_GAME, "noise_dim": 6},
    "aae": {**_CONV, "network": "conv", "critic_hidden": 8, "autoencoder_lr": 5e-3},
    "maskaae": {**_CONV, "network": "conv", "critic_hidden": 8, "autoencoder_lr": 5e-3},
    "vae": _CONV,
    "rae": {**_CONV, "posthoc": "mixture", "posthoc_components": 3},
    "rae_gan": {**_CONV, "posthoc": "mixture", "posthoc_components": 3, "adversarial_start": 0.0},
    "wae_mmd": _CONV,
    "wae_gan": {**_CONV, "critic_hidden": 8},
    "injflow": _CONV,
    "vamp_vae": {**_CONV, "components": 3},
    "flow_vae": {**_CONV, "flow_hidden": 8, "context_dim": 3},
    "info_vae": _CONV,
    "factor_vae": {**_CONV, "critic_hidden": 8, "lr": 1e-3},
    "iop_vae": {**_CONV, "ratio_hidden": 8, "ratio_steps": 2},
}
# What a model may be told to do otherwise: variant → (model, settings beside SMALL).
VARIANTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    **{model: (model, {}) for model in SMALL},
    "flexae-averaged": ("flexae", {"average": 0.9}),
    "flexae-whitened": ("flexae", {"average": 0.9, "prior_whitened": True, "prior_critic_steps": 2}),
    "maskaae-mlp": ("maskaae", {"network": "mlp", "layers": 1, "hidden": 32}),
    "vae-fixed-variance": ("vae", {"likelihood": "fixed-variance", "beta": 4.0}),
    "vae-learned-variance": ("vae", {"likelihood": "learned-variance"}),
    "vae-warmup": ("vae", {"warmup": 0.75}),
    "two-stage-vae": ("vae", {"posthoc": "second-stage", "posthoc_hidden": 8}),
    "vae-flow-posthoc": ("vae", {"posthoc": "flow", "posthoc_hidden": 8}),
    "vae-iop-posthoc": ("vae", {"posthoc": "iop", "posthoc_hidden": 8}),
    "ae": ("rae", {"latent_penalty": 0.0, "weight_penalty": 0.0, "posthoc_components": 1}),
    "flexae-3-stages": ("flexae", {"stages": 3}),
    "rae-3-stages": ("rae", {"stages": 3, "spectral_norm": True}),
    "rae_gan-spectral-norm": ("rae_gan", {"spectral_norm": True, "stages": "auto"}),
    "flow_vae-1-stage": ("flow_vae", {"stages": 1}),
    "rae-gradient-penalty": ("rae", {"weight_penalty": 0.0, "gradient_penalty": 1e-4}),
    "flexae-mixture": ("flexae", {"posthoc": "mixture", "posthoc_components": 2}),
    "flexae-generator": ("flexae", {"posthoc": "generator", "posthoc_hidden": 8, "posthoc_critic_hidden": 8}),
    "maskaae-mixture": ("maskaae", {"posthoc": "mixture", "posthoc_components": 2}),
    "vae-mixture": ("vae", {"posthoc": "mixture"}),
    "rae-spectral-norm": ("rae", {"weight_penalty": 0.0, "spectral_norm": True}),
}


def build(variant: str) -> Autoencoder:
    """Return a fresh model."""
    model, settings = VARIANTS[variant]
    return recipes.check({"name": variant, "model": model, "steps": 1, **SMALL[model], **settings}).build(SHAPE)


def batches(seed: int = 0, size: int = 16) -> Iterator[Tensor]:
    """Yield endless batches of digits."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.from_numpy(load_digits().images).float()[:, None] / 16.0
    while True:
        yield images[torch.randint(0, len(images), (size,), generator=generator)]
