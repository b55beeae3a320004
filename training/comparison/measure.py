"""The figures of one finished run, and the images that show it."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from rae_serve.arrays import Pixels
from rae_serve.images import encode_npz
from training.autoencoder import Autoencoder
from training.evaluation import subject as subjects
from training.evaluation.features.extractors import Extractor
from training.evaluation.figures import (
    EvaluationData,
    Progress,
    collect,
    distribution_figures,
    reconstruction_figures,
)
from training.evaluation.held_out import Images, spaced
from training.evaluation.metrics.latents import active_dimensions
from training.evaluation.prior import mean_log_density
from training.inference import Inference
from training.priors.standard_normal import StandardNormal
from training.priors.wrappers import Whitened
from training.runs import Run

SHOWN: Final = 10  # samples, and reconstructions, of each run in the picture
_FITTED: Final = 50_000  # the most training images whose Gaussian the likelihood is compared with
_METRICS: Final = ("frechet", "precision-recall")


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        title: The heading.
        meaning: What it says, in a sentence.
        best: Which value is best: "least", "greatest", or "" where that is no question.
    """

    title: str
    meaning: str
    best: str = ""


COLUMNS: Final = {
    "reconstruction_distance": Column(
        "reconstruction", "Fréchet distance of reconstructed held-out images to held-out images.", "least"
    ),
    "generation_distance": Column("generation", "Fréchet distance of generated to held-out images.", "least"),
    "precision": Column("precision", "Part of the generated images that look like held-out images.", "greatest"),
    "recall": Column("recall", "Part of the held-out images that look like generated images.", "greatest"),
    "mse": Column("squared error", "Mean squared error of reconstructed held-out images, pixels in [0, 1].", "least"),
    "log_density_gain": Column(
        "ln p",
        "How much likelier the prior makes latents of held-out images than the Gaussian with the mean and covariance "
        "of the training latents does, in nats per image; empty where the prior has no density.",
        "greatest",
    ),
    "active": Column("active", "Latent dimensions whose latents vary over held-out images."),
    "dimensions": Column("of", "Latent dimensions of the training."),
    "parameters": Column("parameters", "Numbers that are trained, critics included."),
    "steps": Column("steps", "Steps of the training."),
    "seconds": Column("seconds", "Time spent in these steps and in fitting the prior."),
}


class Measured(NamedTuple):
    """The figures of a run by the names of COLUMNS, and some images.

    Attributes:
        figures: The figures; None where there is none.
        images: Images to show by name, uint8 [SHOWN, H, W, C] each: "generated" and "reconstructed" ones, and, of the
            data, those of "training" and the "held-out" ones that were reconstructed.
        limit: Fréchet distance of training images to held-out images, which no model can pass.
    """

    figures: dict[str, float | int | None]
    images: dict[str, Pixels]
    limit: float


def measure(
    run: Run,
    images: Images,
    extractor: Extractor,
    count: int,
    device: torch.device,
    progress: Progress,
) -> Measured:
    """Measure a finished run.

    Args:
        run: The run.
        images: Its training images, and images that it has not seen.
        extractor: The network whose features are compared.
        count: The most images of each kind.
        device: Where the model runs.
        progress: Told of each piece of work.
    """
    model, state = run.load()
    subject = subjects.of_run(run, device)
    data = collect(subject, images, count, 0, progress)
    distances = distribution_figures(data, extractor, _METRICS, progress)
    # A mask closes dimensions, which would have a density without meaning: the exported model does not have them.
    exported = model.for_export(run.mean_latent(model))
    likeness = distances["precision-recall"]["generated"]
    seconds = state.facts.get("seconds")  # checkpoints of earlier versions do not count them
    figures: dict[str, Any] = {
        "reconstruction_distance": distances[extractor.label]["reconstructed"],
        "generation_distance": distances[extractor.label]["generated"],
        "precision": likeness["precision"],
        "recall": likeness["recall"],
        "mse": reconstruction_figures(data)["reconstruction"]["mse"],
        "log_density_gain": _log_density_gain(exported.model.to(device), data, device),
        "active": len(active_dimensions(data.encoded[:, exported.active])),
        "dimensions": subject.trained_dim,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "steps": state.step,
        "seconds": None if seconds is None else round(seconds, 1),
    }
    shown = {
        "generated": data.generated,
        "reconstructed": data.reconstructed,
        "training": data.train_sample,
        "held-out": data.held_out,
    }
    limit = distances[extractor.label]["training"]
    figures = {name: value if value is not None and math.isfinite(value) else None for name, value in figures.items()}
    return Measured(figures, {name: pixels[:SHOWN] for name, pixels in shown.items()}, limit)


def _log_density_gain(model: Autoencoder, data: EvaluationData, device: torch.device) -> float | None:
    """Return the mean ln p of latents of held-out images, less that of the Gaussian of the training latents."""
    inference = Inference(model, device)
    held_out = inference.matched(data.held_out, np.arange(len(data.held_out)))
    own = mean_log_density(model.sampler, held_out)
    if own is None:
        return None
    train = inference.matched(data.train, spaced(np.arange(len(data.train)), _FITTED))
    gaussian = Whitened(StandardNormal(model.sampler.latent_dim)).to(device)
    gaussian.start(train, held_out)
    reference = mean_log_density(gaussian, held_out)
    assert reference is not None
    return own - reference


def to_bytes(measured: Measured, key: str) -> bytes:
    """Return the file that keeps figures and images for `read`. `key` says what they were measured of."""
    facts = json.dumps({"key": key, "figures": measured.figures, "limit": measured.limit})
    return encode_npz({"facts": np.array(facts), **measured.images})


def read(path: Path, key: str) -> Measured | None:
    """Return what `to_bytes` keeps, or None if it is missing, damaged, or was measured of something else."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            facts = json.loads(str(arrays["facts"]))
            images = {name: arrays[name] for name in arrays.files if name != "facts"}
            if facts["key"] != key or facts["figures"].keys() != COLUMNS.keys():
                return None
            return Measured(facts["figures"], images, facts["limit"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
