"""The figures of one model: which images and latents are compared, and by which metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from rae_serve.arrays import Latents, Pixels
from training.evaluation.features.extractors import Extractor, extract, load_extractor
from training.evaluation.held_out import Images, spaced
from training.evaluation.metrics import modes, pixels, prd
from training.evaluation.metrics.distances import (
    Features,
    frechet_distance,
    kernel_distance,
    precision_recall,
    spread,
)
from training.evaluation.metrics.latents import active_dimensions, normalised_absolute_correlation
from training.evaluation.metrics.memorisation import Nearest, memorisation, nearest
from training.evaluation.subject import Subject

ON_FEATURES: Final = ("frechet", "kernel", "precision-recall", "prd", "modes")
METRICS: Final = (*ON_FEATURES, "memorisation", "reconstruction", "latent")
AUTHORS_PROTOCOL: Final = "authors-protocol"  # flatters the model, so it is computed only on request
MIN_IMAGES: Final = prd.CLUSTERS  # PRD needs an image per cluster

_PIECE: Final = 1000
Figures = dict[str, dict[str, Any]]
Progress = Callable[[str, int, int], object]  # called with a task, how much of it is done, and its total


class EvaluationData(NamedTuple):
    """The images and latents that figures and pictures are made from. All but `train` have the same length N.

    Attributes:
        held_out: Held-out images, uint8 [N, H, W, C].
        encoded: The latents of the held-out images, float32 [N, m].
        reconstructed: The images of `encoded`, uint8 [N, H, W, C].
        sampled: Latents of the prior, float32 [N, m].
        generated: The images of `sampled`, uint8 [N, H, W, C].
        train: All training images, uint8 [M, H, W, C].
        train_sample: Some of the training images, uint8 [N, H, W, C], or all of them if there are fewer than N.
    """

    held_out: Pixels
    encoded: Latents
    reconstructed: Pixels
    sampled: Latents
    generated: Pixels
    train: Pixels
    train_sample: Pixels


class Neighbours(NamedTuple):
    """The nearest training image of each generated and of each held-out image."""

    generated: Nearest
    held_out: Nearest


def _quiet(task: str, done: int, total: int) -> None:
    """Report no progress."""


def collect(subject: Subject, images: Images, count: int, seed: int, progress: Progress = _quiet) -> EvaluationData:
    """Run the model on held-out images, and generate as many new ones.

    Every set has the same number of images, because a distance depends on how many are compared.

    Args:
        subject: The model.
        images: Training images and held-out images.
        count: The most images of each kind.
        seed: The seed of the generated images.
        progress: Told of each piece of work.
    """
    held_out = spaced(images.held_out, count)
    n = len(held_out)
    encoded = _in_pieces(subject.encode, held_out, "encoding", progress)
    sampled = subject.latents(n, seed)
    return EvaluationData(
        held_out=held_out,
        encoded=encoded,
        reconstructed=_in_pieces(subject.decode, encoded, "reconstructing", progress),
        sampled=sampled,
        generated=_in_pieces(subject.decode, sampled, "generating", progress),
        train=images.train,
        train_sample=spaced(images.train, n),
    )


def compute(
    data: EvaluationData,
    trained_dim: int,
    extractor: Extractor,
    metrics: Collection[str],
    device: torch.device,
    progress: Progress,
) -> tuple[Figures, Neighbours | None]:
    """Compute the chosen figures, and the nearest training images if they are needed for one.

    Args:
        data: The images and latents.
        trained_dim: The latent dimension of the training, before pruning.
        extractor: What computes the features.
        metrics: Which of METRICS to compute.
        device: Where the network runs that finds the nearest training images.
        progress: Told of each piece of work.
    """
    figures = distribution_figures(data, extractor, metrics, progress)
    neighbours = None
    if "memorisation" in metrics:
        # Always by the small network: features of all training images by Inception would take hours.
        small = extractor if extractor.label == "FD-cifar10" else load_extractor("cifar10", device)
        more, neighbours = memorisation_figures(data, small, progress)
        figures |= more
    if "reconstruction" in metrics:
        figures |= reconstruction_figures(data)
    if "latent" in metrics:
        figures |= latent_figures(data, trained_dim)
    return figures, neighbours


def distribution_figures(
    data: EvaluationData, extractor: Extractor, metrics: Collection[str], progress: Progress = _quiet
) -> Figures:
    """Compare generated images, reconstructions and training images with held-out images, by their features.

    The figures of training images are the limit that no model can pass.

    Args:
        data: The images.
        extractor: What computes the features.
        metrics: Which of ON_FEATURES to compute; other names are ignored.
        progress: Told of each piece of work.
    """
    if not set(ON_FEATURES) & set(metrics):
        return {}
    reference = _features(extractor, data.held_out, "held-out images", progress)
    compared = {
        "generated": _features(extractor, data.generated, "generated images", progress),
        "reconstructed": _features(extractor, data.reconstructed, "reconstructions", progress),
        "training": _features(extractor, data.train_sample, "training images", progress),
    }
    figures: Figures = {}
    for done, (kind, features) in enumerate(compared.items()):
        progress("comparing", done, len(compared))
        for name, values in _compare(features, reference, extractor.label, metrics):
            figures.setdefault(name, {})[kind] = values
    progress("comparing", len(compared), len(compared))
    if "frechet" in metrics:
        figures[extractor.label]["spread"] = spread(reference)
    return figures


def memorisation_figures(
    data: EvaluationData, extractor: Extractor, progress: Progress = _quiet
) -> tuple[Figures, Neighbours]:
    """Compare the distances of generated and of held-out images to their nearest training images, by features.

    Args:
        data: The images.
        extractor: What computes the features.
        progress: Told of each piece of work.
    """
    train = _features(extractor, data.train, "all training images", progress)
    neighbours = Neighbours(
        nearest(_features(extractor, data.generated, "generated images", progress), train),
        nearest(_features(extractor, data.held_out, "held-out images", progress), train),
    )
    result = memorisation(neighbours.generated.distance, neighbours.held_out.distance)
    medians = {
        "median_generated": float(np.median(neighbours.generated.distance)),
        "median_held_out": float(np.median(neighbours.held_out.distance)),
    }
    return {"memorisation": {**result._asdict(), **medians}}, neighbours


def reconstruction_figures(data: EvaluationData) -> Figures:
    """Compare reconstructions with the held-out images, pair by pair, and return means over the pairs.

    `explained` is 1 − MSE / V, where V is the mean squared deviation of the held-out images from their mean image. It
    is NaN if all held-out images are equal.
    """
    pairs = data.reconstructed, data.held_out
    error = float(pixels.mse(*pairs).mean())
    variance = float(data.held_out.var(axis=0, dtype=np.float64).mean()) / 255.0**2  # exactly 0 for equal images
    return {
        "reconstruction": {
            "mse": error,
            "psnr_db": float(pixels.psnr(*pairs).mean()),
            "ssim": float(pixels.ssim(*pairs).mean()),
            "explained": 1.0 - error / variance if variance else math.nan,
        }
    }


def latent_figures(data: EvaluationData, trained_dim: int) -> Figures:
    """Count the dimensions that are active over images, and compute the NAC of latents of images and of the prior."""
    figures: dict[str, Any] = {"dimensions": trained_dim, "active": len(active_dimensions(data.encoded))}
    for name, latents in (("codes", data.encoded), ("prior", data.sampled)):
        active = active_dimensions(latents)
        figures[f"nac_{name}"] = normalised_absolute_correlation(latents[:, active]) if len(active) else math.nan
    return {"latent": figures}


def authors_figures(
    subjects: Iterable[Subject], images: Images, extractor: Extractor, count: int, seed: int
) -> Figures:
    """Follow the protocol of the FlexAE authors (https://arxiv.org/abs/2006.05838).

    Their protocol stretches every fake image to its own extremes, and takes the checkpoint that is best on the test
    images. Both flatter the model: use the figures only beside those of the authors' tables.

    Args:
        subjects: The model at each of its checkpoints.
        images: Training images and held-out images.
        extractor: What computes the features.
        count: The most images of each kind.
        seed: The seed of the generated images.
    """
    reference = extract(extractor, spaced(images.held_out, count))
    found = []
    for subject in subjects:
        data = collect(subject, images, count, seed)
        distances = {
            kind: frechet_distance(extract(extractor, stretch(fakes)), reference)
            for kind, fakes in (("generated", data.generated), ("reconstructed", data.reconstructed))
        }
        found.append({**distances, "step": subject.facts["training"]["steps"]})
    best = min(found, key=lambda figures: float(figures["generated"]))
    return {f"{extractor.label}, authors' protocol": {**best, "checkpoints": len(found), "chosen_on": images.split}}


def stretch(images: Pixels) -> Pixels:
    """Stretch each image [H, W, C] so that its least value is 0 and its greatest 255. A flat image stays as it is."""
    low = images.min(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    high = images.max(axis=(1, 2, 3), keepdims=True)
    scaled = np.rint(255.0 * (images - low) / np.where(high > low, high - low, 1.0))
    return np.where(high > low, scaled, images).astype(np.uint8)


def _features(extractor: Extractor, images: Pixels, what: str, progress: Progress) -> Features:
    return extract(extractor, images, partial(progress, f"features of {what}"))


def _compare(
    features: Features, reference: Features, label: str, metrics: Collection[str]
) -> Iterator[tuple[str, float | dict[str, float]]]:
    if "frechet" in metrics:
        yield label, frechet_distance(features, reference)
    if "kernel" in metrics:
        name = "KID" if label == "FID" else label.replace("FD-", "KD-")
        yield name, kernel_distance(features, reference)._asdict()
    if "precision-recall" in metrics:
        yield "precision-recall", precision_recall(features, reference)._asdict()
    if "prd" in metrics:
        yield "prd", prd.prd_scores(features, reference)._asdict()
    if "modes" in metrics and len(reference) >= modes.MIN_IMAGES:
        yield "rarest mode", modes.rarest_mode(features, reference)


def _in_pieces(
    graph: Callable[[Any], npt.NDArray[Any]], rows: npt.NDArray[Any], task: str, progress: Progress
) -> npt.NDArray[Any]:
    """Run an encoder or a decoder on 1,000 rows at a time."""
    parts = []
    for start in range(0, len(rows), _PIECE):
        parts.append(graph(rows[start : start + _PIECE]))
        progress(task, min(start + _PIECE, len(rows)), len(rows))
    return np.concatenate(parts)
