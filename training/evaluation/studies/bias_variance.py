"""The bias-variance trade-off over the capacity of the prior, on limited data (the talk's Table 5).

A prior that is too small cannot follow the codes; one that is too large follows what is accidental in them, or
cannot be trained on so few. The same auto-encoder is trained with six priors on 2,000 images of MNIST, and the
Fréchet distances of its reconstructions and its generations from the test images are taken.
"""

from __future__ import annotations

from typing import Final

from training.data import Dataset
from training.evaluation.studies.training import Study, recipe
from training.recipe import Recipe

# Layers and their width, from the smallest to the largest.
CAPACITIES: Final = ((1, 8), (1, 32), (2, 128), (4, 512), (8, 512), (16, 512))
IMAGES: Final = 2000
# A third of the recipe's width and higher rates: a study of six runs is to end within an hour on a small machine.
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
    # As published: no average of the prior's weights, no decay and no further steps of the prior.
    ("average", 0.0),
    ("decay", 0.0),
    ("prior_steps", 0),
)
QUICK: Final = (("steps", 150), ("filters", 8), ("hidden", 64), ("critic_hidden", 64), ("critic_layers", 3))
_QUICK_IMAGES: Final = 500
_QUICK_CAPACITIES: Final = ((1, 4), (2, 64), (6, 128))


def run(study: Study) -> None:
    """Train what is missing, measure, and write bias-variance.csv, .json, .png and .md."""
    for capacity in capacities(study):
        chosen = _recipe(study, capacity)
        study.trained(name(capacity), chosen, _dataset(study, chosen))


def capacities(study: Study) -> tuple[tuple[int, int], ...]:
    """The (layers, width) of the priors that are compared."""
    return _QUICK_CAPACITIES if study.quick else CAPACITIES


def name(capacity: tuple[int, int]) -> str:
    """Of the run of a capacity."""
    layers, hidden = capacity
    return f"prior-{layers}x{hidden}"


def _recipe(study: Study, capacity: tuple[int, int]) -> Recipe:
    layers, hidden = capacity
    base, settings = ("flexae-digits", QUICK) if study.quick else ("flexae-mnist-small", SETTINGS)
    return recipe(base, [*settings, ("prior_layers", layers), ("prior_hidden", hidden)])


def _dataset(study: Study, chosen: Recipe) -> Dataset:
    return study.dataset(chosen, _QUICK_IMAGES if study.quick else IMAGES)
