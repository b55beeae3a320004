"""What the studies of the mask share: runs of MaskAAE and of its twin, the AAE with the same critic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rae_serve import data_sets
from rae_serve.arrays import Latents, Pixels
from rae_serve.errors import InvalidInput
from training.autoencoder import Autoencoder
from training.data import sources
from training.evaluation import subject as subjects
from training.evaluation.features.extractors import Extractor, extract, load_extractor
from training.evaluation.metrics.distances import Features, frechet_distance
from training.evaluation.metrics.latents import normalised_absolute_correlation
from training.evaluation.metrics.pixels import mse
from training.evaluation.subject import Subject
from training.models.maskaae import ACTIVE, MaskAAE
from training.runs import Run
from training.studies.study import Study, recipe

# Data set → the end of its recipes' names.
RECIPES: Final = {
    "synthetic-8": "synthetic8",
    "synthetic-16": "synthetic16",
    "mnist": "mnist-small",
    "digits": "digits",
}
SYSTEMS: Final = {"aae": "AAE", "maskaae": "MaskAAE"}  # the start of a recipe's name → the name of its system
QUICK: Final = (("steps", 1500),)


@dataclass(frozen=True)
class Twins:
    """The runs of both systems on one data set of RECIPES. Studies with the same folder share the runs."""

    study: Study
    data_name: str

    @classmethod
    def of(cls, study: Study) -> Twins:
        """Choose the data set: that of the study, or by default synthetic-8, or digits for a quick study.

        Raises:
            InvalidInput: There are no recipes for the data set.
        """
        source = study.source or ("digits" if study.quick else "synthetic-8")
        name = source if source in RECIPES else data_sets.found_in(Path(source), "mnist")
        if name not in RECIPES:
            raise InvalidInput("data", f"the recipes of MaskAAE are for {', '.join(RECIPES)}, not for {source!r}")
        return cls(study, name)

    @property
    def true_dim(self) -> int | None:
        """The dimension of the data, or None if it is unknown."""
        return sources.SYNTHETIC.get(self.data_name)

    @property
    def recipe_dim(self) -> int:
        """The latent dimension m of the recipe."""
        return int(recipe(self._recipe_name("maskaae"), ()).parameters["latent_dim"])

    def trained(self, system: str, latent_dim: int) -> Twin:
        """Return the finished run of a key of SYSTEMS with m = `latent_dim`."""
        settings = [*(QUICK if self.study.quick else ()), ("latent_dim", latent_dim)]
        chosen = recipe(self._recipe_name(system), settings)
        name = f"{system}-{self.data_name}-{latent_dim}"
        return Twin(self, system, self.study.trained(name, chosen, self.study.dataset(chosen)))

    @cached_property
    def test_images(self) -> Pixels:
        """The test images."""
        return self.study.test_images(recipe(self._recipe_name("aae"), ()))

    @property
    def distance_name(self) -> str:
        """The name of `distance`: synthetic data are compared as points, pictures by their features."""
        return "Fréchet distance of the points" if self.true_dim else self._extractor.label

    def distance(self, images: Pixels) -> float:
        """Return the Fréchet distance of images to the test images. The coordinates of points are in [0, 1]."""
        return frechet_distance(self._features(images), self._reference)

    @cached_property
    def _extractor(self) -> Extractor:
        return load_extractor("cifar10", self.study.device)

    @cached_property
    def _reference(self) -> Features:
        return self._features(self.test_images)

    def _features(self, images: Pixels) -> Features:
        return images.reshape(len(images), -1) / 255.0 if self.true_dim else extract(self._extractor, images)

    def _recipe_name(self, system: str) -> str:
        return f"{system}-{RECIPES[self.data_name]}"


@dataclass(frozen=True)
class Twin:
    """A finished run of one of the two systems."""

    twins: Twins
    system: str
    run: Run

    @cached_property
    def model(self) -> Autoencoder:
        """The model at the end of the run."""
        return self.run.load()[0]

    @property
    def mask(self) -> npt.NDArray[np.float32]:
        """α of every dimension, [m]; an AAE's is 1."""
        model = self.model
        return model.mask.detach().numpy() if isinstance(model, MaskAAE) else np.ones(model.sampler.latent_dim, "f4")

    @property
    def active(self) -> list[int]:
        """The dimensions that the model uses."""
        return np.flatnonzero(self.mask >= ACTIVE).tolist()

    @cached_property
    def latents(self) -> Latents:
        """The latents of the test images before the mask, [N, m]."""
        return self._subject.encode(self.twins.test_images)

    def row(self) -> dict[str, Any]:
        """Measure the run on the test images and on as many generated images. NAC is over the active dimensions."""
        subject, test = self._subject, self.twins.test_images
        generated = subject.decode(subject.latents(len(test), 0))
        return {
            "system": SYSTEMS[self.system],
            "m": len(self.mask),
            "active": len(self.active),
            "reconstruction_mse": float(mse(subject.decode(self.latents), test).mean()),
            "generation_distance": self.twins.distance(generated),
            "nac": normalised_absolute_correlation(self.latents[:, self.active]),
        }

    @cached_property
    def _subject(self) -> Subject:
        return subjects.of_run(self.run, self.twins.study.device)
