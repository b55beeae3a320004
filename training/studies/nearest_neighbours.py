"""Generated images, and held-out images, beside their nearest training images (Fig. 17 of the talk)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from rae_serve.arrays import Pixels
from rae_serve.images import encode, grid
from training.data.dataset import digest
from training.evaluation import subject as subjects
from training.evaluation.features.extractors import extract, load_extractor
from training.evaluation.held_out import spaced
from training.evaluation.metrics.memorisation import Nearest, memorisation, nearest
from training.studies.study import Study, recipe

SETTINGS: Final = (
    ("steps", 2345),
    ("filters", 16),
    ("hidden", 256),
    ("prior_hidden", 256),
    ("critic_hidden", 256),
    ("prior_steps", 5000),
)
QUICK: Final = (("steps", 1200), ("prior_steps", 2000), ("average", 0.999))
_COUNT: Final = 2000
_SHOWN: Final = 10


def run(study: Study) -> None:
    """Train the missing model, and write nearest-neighbours.csv, .png and .md and a grid for each kind of image."""
    base, settings = ("flexae-digits", QUICK) if study.quick else ("flexae-mnist-small", SETTINGS)
    chosen = recipe(base, settings)
    test = spaced(study.test_images(chosen), _COUNT)
    dataset = study.dataset(chosen)
    trained = study.trained("flexae", chosen, dataset)
    subject = subjects.of_run(trained, study.device)
    train = dataset.images[dataset.train]
    extractor = load_extractor("cifar10", study.device)
    images = {"generated": subject.decode(subject.latents(len(test), 0)), "held-out": test}
    train_features = extract(extractor, train)
    found = {kind: nearest(extract(extractor, shown), train_features) for kind, shown in images.items()}
    result = memorisation(found["generated"].distance, found["held-out"].distance)
    row: dict[str, Any] = {"images": len(test), "training_digest": digest(train), **result._asdict()}
    study.write_rows("nearest-neighbours", [row])
    study.write_figure("nearest-neighbours", _figure(found))
    for kind, shown in images.items():
        study.write_png(f"nearest-neighbours-{kind}", _grid(shown, train[found[kind].row[:_SHOWN]]))
    study.write_page("nearest-neighbours", dataset.name, row=row)


def _grid(images: Pixels, neighbours: Pixels) -> bytes:
    """Show the first images above their neighbours."""
    return encode(grid(np.concatenate([images[:_SHOWN], neighbours]), _SHOWN))


def _figure(found: dict[str, Nearest]) -> Figure:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    edges = np.histogram_bin_edges(np.concatenate([each.distance for each in found.values()]), bins=60).tolist()
    for kind, each in found.items():
        axes.hist(each.distance, bins=edges, alpha=0.5, label=kind)
    axes.set(xlabel="distance to the nearest training image", ylabel="images")
    axes.legend()
    return figure
