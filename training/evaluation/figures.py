"""The figures of one model: which sets of images are compared, by which metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

import numpy as np

from rae_serve.arrays import Pixels
from training.evaluation.features import extractors as looking
from training.evaluation.features.extractors import Network
from training.evaluation.held_out import Images, spaced
from training.evaluation.metrics import modes, pixels
from training.evaluation.metrics.distances import (
    Features,
    frechet_distance,
    kernel_distance,
    precision_recall,
    spread,
)
from training.evaluation.metrics.latents import active_dimensions, normalised_absolute_correlation
from training.evaluation.metrics.memorisation import Nearest, memorisation, nearest
from training.evaluation.metrics.prd import prd_scores
from training.evaluation.subject import Codes, Subject

ON_FEATURES: Final = ("frechet", "kernel", "precision-recall", "prd", "modes")
METRICS: Final = (*ON_FEATURES, "memorisation", "reconstruction", "latent")
AUTHORS: Final = "authors-protocol"  # flatters, so it is taken only where it is asked for
FEWEST: Final = 20  # images that PRD's clusters need

_PIECE: Final = 1000
Figures = dict[str, dict[str, Any]]
Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


class Sets(NamedTuple):
    """Images and latents that the figures and the pictures are of; N of each but the training images."""

    held_out: Pixels
    codes: Codes
    reconstructed: Pixels
    latents: Codes
    generated: Pixels
    train: Pixels
    train_sample: Pixels


class Neighbours(NamedTuple):
    """The nearest training image of each generated and of each held-out image."""

    generated: Nearest
    held_out: Nearest


def sets(subject: Subject, images: Images, count: int, seed: int, progress: Progress) -> Sets:
    """At most `count` images of each kind, as many of each as are held out: a distance depends on how many."""
    held_out = spaced(images.held_out, count)
    n = len(held_out)
    latents = subject.latents(n, seed)
    codes = np.concatenate(list(_pieces(subject.encode, held_out, "encoding", progress)))
    return Sets(
        held_out=held_out,
        codes=codes,
        reconstructed=np.concatenate(list(_pieces(subject.decode, codes, "reconstructing", progress))),
        latents=latents,
        generated=np.concatenate(list(_pieces(subject.decode, latents, "generating", progress))),
        train=images.train,
        train_sample=spaced(images.train, n),
    )


def distribution_figures(these: Sets, look: Network, metrics: Collection[str], progress: Progress) -> Figures:
    """Metrics on features: generated, reconstructed and, as the limit, real training images against held-out ones."""
    if not set(ON_FEATURES) & set(metrics):
        return {}
    reference = looked_at(look, these.held_out, "held-out images", progress)
    compared = {
        "generated": looked_at(look, these.generated, "generated images", progress),
        "reconstructed": looked_at(look, these.reconstructed, "reconstructions", progress),
        "training": looked_at(look, these.train_sample, "training images", progress),
    }
    figures: Figures = {}
    for done, (kind, features) in enumerate(compared.items()):
        progress("comparing", done, len(compared))
        for name, values in _compare(features, reference, look.label, metrics):
            figures.setdefault(name, {})[kind] = values
    progress("comparing", len(compared), len(compared))
    if "frechet" in metrics:
        figures[look.label]["spread"] = spread(reference)
    return figures


def memorisation_figures(these: Sets, look: Network, progress: Progress) -> tuple[Figures, Neighbours]:
    """How near generated and held-out images are to training images, by features."""
    train = looked_at(look, these.train, "all training images", progress)
    found = [
        nearest(looked_at(look, images, "neighbours", progress), train)
        for images in (these.generated, these.held_out)
    ]
    neighbours = Neighbours(*found)
    result = memorisation(neighbours.generated.distance, neighbours.held_out.distance)
    medians = {
        "median_generated": float(np.median(neighbours.generated.distance)),
        "median_held_out": float(np.median(neighbours.held_out.distance)),
    }
    return {"memorisation": {**result._asdict(), **medians}}, neighbours


def reconstruction_figures(these: Sets) -> Figures:
    """Means over the held-out images; `explained` is 1 − MSE / the mean squared deviation from their mean image."""
    pairs = these.reconstructed, these.held_out
    error = float(pixels.mse(*pairs).mean())
    variance = float((these.held_out / 255.0).var(axis=0).mean())
    return {
        "reconstruction": {
            "mse": error,
            "psnr_db": float(pixels.psnr(*pairs).mean()),
            "ssim": float(pixels.ssim(*pairs).mean()),
            "explained": 1.0 - error / variance if variance else math.nan,
        }
    }


def latent_figures(these: Sets, trained_dim: int) -> Figures:
    """NAC over the active dimensions of the held-out codes and of the prior's latents, and how many are active."""
    figures: dict[str, Any] = {"dimensions": trained_dim, "active": len(active_dimensions(these.codes))}
    for name, latents in (("codes", these.codes), ("prior", these.latents)):
        active = active_dimensions(latents)
        figures[f"nac_{name}"] = normalised_absolute_correlation(latents[:, active]) if len(active) else math.nan
    return {"latent": figures}


def authors_figures(subjects: Iterable[Subject], images: Images, look: Network, count: int, seed: int) -> Figures:
    """The authors' protocol: every fake image stretched to its own extremes, the best checkpoint by the test images.

    Both flatter: for comparison with their tables alone.
    """
    quiet: Progress = lambda *_: None  # noqa: E731
    reference = looked_at(look, spaced(images.held_out, count), "held-out images", quiet)
    found = []
    for subject in subjects:
        these = sets(subject, images, count, seed, quiet)
        distances = {
            kind: frechet_distance(looked_at(look, stretch(fakes), kind, quiet), reference)
            for kind, fakes in (("generated", these.generated), ("reconstructed", these.reconstructed))
        }
        found.append({**distances, "step": subject.facts["training"]["steps"]})
    best = min(found, key=lambda figures: figures["generated"])
    return {f"{look.label}, authors' protocol": {**best, "checkpoints": len(found), "chosen_on": images.split}}


def stretch(images: Pixels) -> Pixels:
    """Each image [H, W, C] stretched so that its least value is 0 and its greatest 255; a flat one stays."""
    low = images.min(axis=(1, 2, 3), keepdims=True).astype(np.float64)
    high = images.max(axis=(1, 2, 3), keepdims=True)
    scaled = np.rint(255.0 * (images - low) / np.where(high > low, high - low, 1.0))
    return np.where(high > low, scaled, images).astype(np.uint8)


def looked_at(look: Network, images: Pixels, what: str, progress: Progress) -> Features:
    """Features of images, from the cache where they are there."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(f"looking at {what}", done, len(images))

    return looking.features(look, images, advance)


def _compare(
    features: Features, reference: Features, label: str, metrics: Collection[str]
) -> Iterable[tuple[str, float | dict[str, float]]]:
    if "frechet" in metrics:
        yield label, frechet_distance(features, reference)
    if "kernel" in metrics:
        name = "KID" if label == "FID" else label.replace("FD-", "KD-")
        yield name, kernel_distance(features, reference)._asdict()
    if "precision-recall" in metrics:
        yield "precision-recall", precision_recall(features, reference)._asdict()
    if "prd" in metrics:
        yield "prd", prd_scores(features, reference)._asdict()
    if "modes" in metrics and len(reference) >= modes.FEWEST:
        yield "rarest mode", modes.rarest_mode(features, reference)


def _pieces(graph: Callable[[Any], Any], rows: Any, doing: str, progress: Progress) -> Iterable[Any]:
    for start in range(0, len(rows), _PIECE):
        yield graph(rows[start : start + _PIECE])
        progress(doing, min(start + _PIECE, len(rows)), len(rows))
