"""Bias and variance against the capacity of the prior, on few training images (Table 5 of the talk).

A prior that is too small cannot match the latents of images. A prior that is too large matches accidents of the few
training images, or cannot be trained on them. The study trains the same auto-encoder with six priors on 2,000 images
of MNIST, and measures the Fréchet distances of reconstructed and of generated images to the test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from matplotlib.figure import Figure

from rae_serve.arrays import Pixels
from training.evaluation import subject as subjects
from training.evaluation.features.extractors import Extractor, extract, load_extractor
from training.evaluation.metrics.distances import frechet_distance, precision_recall
from training.evaluation.metrics.memorisation import memorisation, nearest
from training.models.flexae import FlexAE
from training.recipe import Recipe
from training.runs import Run
from training.studies.study import Study, recipe

# Layers and their width, from the smallest prior to the largest.
CAPACITIES: Final = ((1, 8), (1, 32), (2, 128), (4, 512), (8, 512), (16, 512))
IMAGES: Final = 2000
# Narrower than the recipe and with higher learning rates, so that six runs end within an hour on a small machine.
SETTINGS: Final = (
    ("steps", 2500),
    ("batch_size", 64),
    ("filters", 16),
    ("hidden", 256),
    ("critic_hidden", 256),
    ("critic_layers", 3),
    ("critic_lr", 3e-4),
    ("generator_lr", 5e-4),
    ("sample_every", 500),
    # As published: no averaged weights, no decay of the learning rates and no further steps of the prior.
    ("average", 0.0),
    ("decay", 0.0),
    ("prior_steps", 0),
)
QUICK: Final = (
    ("steps", 800),
    ("generator_lr", 5e-4),
    ("critic_lr", 3e-4),
    ("critic_hidden", 64),
    ("critic_layers", 3),
)
_QUICK_IMAGES: Final = 500
_QUICK_CAPACITIES: Final = ((1, 4), (2, 64), (6, 128))

# Table 5 of the talk on MNIST: FID of reconstructed and of generated images, by capacity 1 to 6.
PUBLISHED: Final = ((60.5, 55.5), (21.0, 53.9), (13.4, 42.1), (14.4, 31.0), (8.1, 63.6), (8.9, 62.4))


def run(study: Study) -> None:
    """Train the missing models, and write bias-variance.csv, .png and .md."""
    extractor = load_extractor("cifar10", study.device)
    test = study.test_images(_recipe(study, CAPACITIES[0]))
    rows = []
    for capacity in _QUICK_CAPACITIES if study.quick else CAPACITIES:
        chosen = _recipe(study, capacity)
        layers, hidden = capacity
        images = _QUICK_IMAGES if study.quick else IMAGES
        trained = study.trained(f"prior-{layers}x{hidden}", chosen, study.dataset(chosen, images))
        rows.append({"layers": layers, "hidden": hidden, **_measured(trained, study, test, extractor)})
        study.write_rows("bias-variance", rows)  # after each model, to show results early
    study.write_figure("bias-variance", _figure(rows, extractor.label))
    best = min(rows, key=lambda row: float(row["generation"]))
    study.write_page(
        "bias-variance",
        trained.data.name,
        images=trained.data.images,
        label=extractor.label,
        rows=rows,
        best=best,
        best_is_inside=0 < rows.index(best) < len(rows) - 1,
        published=PUBLISHED,
    )


def _recipe(study: Study, capacity: tuple[int, int]) -> Recipe:
    layers, hidden = capacity
    base, settings = ("flexae-digits", QUICK) if study.quick else ("flexae-mnist-small", SETTINGS)
    return recipe(base, [*settings, ("prior_layers", layers), ("prior_hidden", hidden)])


def _measured(run: Run, study: Study, test: Pixels, extractor: Extractor) -> dict[str, Any]:
    """Compare reconstructed and generated images with test images, and generated ones with training images."""
    subject = subjects.of_run(run, study.device)
    model, _ = run.load()
    dataset = study.dataset(run.recipe, run.data.images)
    reference = extract(extractor, test)
    generated = extract(extractor, subject.decode(subject.latents(len(test), 0)))
    reconstructed = extract(extractor, subject.decode(subject.encode(test)))
    train = extract(extractor, dataset.images[dataset.train])
    copied = memorisation(nearest(generated, train).distance, nearest(reference, train).distance)
    likeness = precision_recall(generated, reference)
    return {
        "parameters": sum(weights.numel() for weights in cast(FlexAE, model).generator.generator_parameters()),
        "reconstruction": frechet_distance(reconstructed, reference),
        "generation": frechet_distance(generated, reference),
        "precision": likeness.precision,
        "recall": likeness.recall,
        "copies": copied.copies,
    }


def _figure(rows: Sequence[Mapping[str, Any]], label: str) -> Figure:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for key in ("generation", "reconstruction"):
        axes.plot(range(1, len(rows) + 1), [row[key] for row in rows], marker="o", label=key)
    axes.set_xticks(range(1, len(rows) + 1), [f"{row['layers']}×{row['hidden']}" for row in rows])
    axes.set(xlabel="capacity of the prior: layers × width", ylabel=f"{label} to the test images", yscale="log")
    axes.legend()
    return figure
