"""A fixed and a learned prior in two dimensions (Fig. 8 and 9 of the talk).

Both priors are compared with the latents of images of one auto-encoder, whose latent space has two dimensions so that
it can be drawn. The fixed prior is N(0, I), moved and scaled to match the mean and standard deviation of these
latents; the learned prior is that of FlexAE. The study measures which share of each prior falls where no image is.
"""

from __future__ import annotations

from typing import Any, Final

from matplotlib.figure import Figure

from rae_serve import noise
from rae_serve.arrays import Latents
from rae_serve.images import encode, grid
from training.evaluation import subject as subjects
from training.evaluation.held_out import spaced
from training.evaluation.metrics.distances import frechet_distance, precision_recall
from training.studies.study import Study, recipe

# In two dimensions, one critic step per prior step is too few: all samples of the prior stay in the middle of the
# latents of images. With five steps, a smaller penalty and a higher learning rate they spread over all of them.
STRONG_CRITIC: Final = (("prior_critic_steps", 5), ("prior_critic_lr", 1e-3), ("prior_penalty", 0.1))
SETTINGS: Final = (
    *STRONG_CRITIC,
    ("latent_dim", 2),
    ("steps", 2000),
    ("filters", 16),
    ("hidden", 256),
    ("prior_hidden", 256),
    ("critic_hidden", 256),
    ("prior_steps", 6000),
    ("sample_every", 2000),
)
QUICK: Final = (
    *STRONG_CRITIC,
    ("latent_dim", 2),
    ("steps", 400),
    ("prior_steps", 1800),
    ("average", 0.99),
)
_IMAGES: Final = 10_000
_ENCODED: Final = 2000
_SHOWN: Final = 64


def run(study: Study) -> None:
    """Train the missing model, and write priors-2d.csv, .png and .md and a grid of images of each prior."""
    base, settings = ("flexae-digits", QUICK) if study.quick else ("flexae-mnist-small", SETTINGS)
    chosen = recipe(base, settings)
    dataset = study.dataset(chosen, None if study.quick else _IMAGES)
    subject = subjects.of_run(study.trained("flexae-2d", chosen, dataset), study.device)
    encoded = subject.encode(dataset.images[spaced(dataset.train, _ENCODED)])
    priors = {"fixed": _fixed(encoded), "learned": subject.latents(len(encoded), 0)}
    rows = [{"prior": name, **_compared(sampled, encoded)} for name, sampled in priors.items()]
    study.write_rows("priors-2d", rows)
    study.write_figure("priors-2d", _figure(encoded, priors))
    for name, latents in priors.items():
        study.write_png(f"priors-2d-{name}", encode(grid(subject.decode(latents[:_SHOWN]))))
    fixed, learned = rows
    study.write_page(
        "priors-2d",
        dataset.name,
        rows=rows,
        count=len(encoded),
        learned_is_better=(learned["precision"] > fixed["precision"] and learned["recall"] >= 0.9 * fixed["recall"]),
    )


def _fixed(encoded: Latents) -> Latents:
    """Sample N(0, I) by the noise of seed 0, moved and scaled to the mean and standard deviation of `encoded`."""
    return noise.normals(0, 0, *encoded.shape) * encoded.std(axis=0) + encoded.mean(axis=0)


def _compared(sampled: Latents, encoded: Latents) -> dict[str, Any]:
    """Return improved precision and recall and the Fréchet distance, computed on the latents themselves."""
    likeness = precision_recall(sampled, encoded)
    return {**likeness._asdict(), "frechet_distance": frechet_distance(sampled, encoded)}


def _figure(encoded: Latents, priors: dict[str, Latents]) -> Figure:
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (name, latents) in zip(panels, priors.items(), strict=True):
        axes.scatter(*encoded.T, s=5, alpha=0.5, linewidths=0, label="training images")
        axes.scatter(*latents.T, s=5, alpha=0.5, linewidths=0, label=f"{name} prior")
        axes.set(title=f"{name} prior", aspect="equal")
        axes.legend(markerscale=3)
    return figure
