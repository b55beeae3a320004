"""What a prior is worth on its auto-encoder: how likely it makes held-out latents, and how good its images are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor

from rae_serve.arrays import Pixels
from training.autoencoder import Autoencoder
from training.data.dataset import Dataset
from training.evaluation.features.extractors import extract, load_extractor
from training.evaluation.held_out import spaced
from training.evaluation.metrics.distances import Features, frechet_distance
from training.inference import Inference
from training.priors.base import Prior

_COMPARED: Final = 5000  # the most images of each kind
_ENOUGH: Final = 1000  # with fewer held-out images, a distance to them says little


class PriorFigures(NamedTuple):
    """The figures of one sampler, or of images that are not sampled.

    Attributes:
        log_density: Mean of ln p over held-out latents, in nats per image; None without a density.
        distance: Fréchet distance to the reference images.
    """

    log_density: float | None
    distance: float


class Comparison(NamedTuple):
    """The figures of several samplers on one auto-encoder.

    Attributes:
        rows: The figures by the sampler's name, and of the training images after encoding and decoding.
        network: The name of the distance.
        reference: What images the distances are measured to.
    """

    rows: dict[str, PriorFigures]
    network: str
    reference: str


@torch.no_grad()
def mean_log_density(prior: Prior, latents: Tensor) -> float | None:
    """Return the mean of ln p over latents [B, m], in nats; None if the prior has no density."""
    density = prior.log_density(latents)
    return None if density is None else density.double().mean().item()


def compare(samplers: Mapping[str, Autoencoder], dataset: Dataset, device: torch.device) -> Comparison:
    """Measure samplers of one auto-encoder on the images that its training held out, or on training images if few.

    Args:
        samplers: Models with the same encoder and decoder, by the name of their sampler.
        dataset: The images of the training.
        device: Where the models run.
    """
    extractor = load_extractor("cifar10", device)
    enough = len(dataset.validation) >= _ENOUGH
    reference = dataset.images[spaced(dataset.validation if enough else dataset.train, _COMPARED)]
    target = extract(extractor, reference)

    def distance(images: Pixels) -> float:
        features: Features = extract(extractor, images)
        return frechet_distance(features, target)

    rows = {}
    for name, model in samplers.items():
        inference = Inference(model, device)
        held_out = dataset.validation if len(dataset.validation) else dataset.train
        density = mean_log_density(model.sampler, inference.matched(dataset.images, held_out))
        rows[name] = PriorFigures(density, distance(inference.sample(len(reference))))
    train = dataset.images[spaced(dataset.train, len(reference))]
    rows["reconstructed training images"] = PriorFigures(None, distance(inference.reconstruct(train)))
    kind = "held-out" if enough else "training"
    return Comparison(rows, extractor.label, f"{len(reference):,} {kind} images")
