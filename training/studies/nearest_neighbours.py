"""Generated images and the training images nearest to them (the talk's Fig. 17), beside held-out ones and theirs."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from rae_serve import images as pictures
from rae_serve.arrays import Pixels
from training.evaluation.features.extractors import digest, features, network
from training.evaluation.held_out import spaced
from training.evaluation.metrics.memorisation import Nearest, memorisation, nearest
from training.evaluation.subject import RunSubject
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
    """Train what is missing, and write nearest-neighbours.csv, .json, .png and .md and the two grids."""
    base, settings = ("flexae-digits", QUICK) if study.quick else ("flexae-mnist-small", SETTINGS)
    chosen = recipe(base, settings)
    test = spaced(study.test(chosen), _COUNT)
    dataset = study.dataset(chosen)
    trained = study.trained("flexae", chosen, dataset)
    subject = RunSubject(trained, study.device)
    train = dataset.images[dataset.train]
    look = network("cifar10", study.device)
    generated = subject.decode(subject.latents(len(test), 0))
    known = features(look, train)
    found = {name: nearest(features(look, images), known) for name, images in _named(generated, test)}
    result = memorisation(found["generated"].distance, found["held-out"].distance)
    row: dict[str, Any] = {"images": len(test), "training_digest": digest(train), **result._asdict()}
    study.write_rows("nearest-neighbours", [row])
    study.write_figure("nearest-neighbours", _figure(found))
    for name, images in _named(generated, test):
        pairs = np.concatenate([images[:_SHOWN], train[found[name].index[:_SHOWN]]])
        study.write_png(f"nearest-neighbours-{name}", pictures.encode(pictures.grid(pairs, _SHOWN)))
    study.write_text("nearest-neighbours.md", _page(row))


def _named(generated: Pixels, test: Pixels) -> tuple[tuple[str, Pixels], ...]:
    return ("generated", generated), ("held-out", test)


def _figure(found: dict[str, Nearest]) -> Figure:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    edges = np.histogram_bin_edges(np.concatenate([near.distance for near in found.values()]), bins=60)
    for name, near in found.items():
        axes.hist(near.distance, bins=edges, alpha=0.5, label=name)
    axes.set(xlabel="distance to the nearest training image", ylabel="images")
    axes.legend()
    return figure


def _page(row: dict[str, Any]) -> str:
    return "\n".join(
        [
            "# Nearest neighbours",
            "",
            f"Of {row['images']:,} generated images, {row['copies']:.1%} are nearer to a training image than 99% of "
            f"as many held-out ones; chance gives 1%. A generated image is nearer than a held-out one in "
            f"{row['closer']:.0%} of pairs; new images would be in 50%.",
            "",
            "![Distances](nearest-neighbours.png)",
            "",
            "Generated images above the training images nearest to them, as in the talk's Fig. 17:",
            "",
            "![Generated](nearest-neighbours-generated.png)",
            "",
            "The same of held-out images, which the talk does not show, and without which the figure says nothing:",
            "",
            "![Held-out](nearest-neighbours-held-out.png)",
            "",
            "Nearest by the 256 features of our CIFAR-10 network. The talk does not say by what it measured.",
            "",
        ]
    )
