"""What the studies of the mask share: MaskAAE and its twin, the AAE of the same critic, on the same data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from training.data import sources
from training.evaluation.features.extractors import Network, features, network
from training.evaluation.metrics.distances import Features, frechet_distance
from training.evaluation.metrics.latents import normalised_absolute_correlation
from training.evaluation.subject import Codes, RunSubject
from training.models.maskaae import MaskAAE
from training.runs import Run
from training.studies.study import Study, recipe

# Data set → what its recipes end in.
RECIPES: Final = {
    "synthetic-8": "synthetic8",
    "synthetic-16": "synthetic16",
    "mnist": "mnist-small",
    "digits": "digits",
}
SYSTEMS: Final = {"aae": "AAE", "maskaae": "MaskAAE"}  # the first word of a recipe's name → the system's
QUICK: Final = (("steps", 1500),)


@dataclass(frozen=True)
class Twins:
    """A data set of RECIPES, and runs of either system on it: the studies in one folder share them."""

    study: Study
    data_name: str

    @classmethod
    def of(cls, study: Study) -> Twins:
        """By the study's source; without one Synthetic-8, or the digits where it is to be quick.

        Raises InvalidInput, naming `data`, for a source without such recipes.
        """
        source = study.source or ("digits" if study.quick else "synthetic-8")
        name = source if source in RECIPES else sources.data_set_in(Path(source), "mnist")
        if name not in RECIPES:
            raise InvalidInput("data", f"the recipes of MaskAAE are for {', '.join(RECIPES)}, not for {source!r}")
        return cls(study, name)

    @property
    def true_dim(self) -> int | None:
        """The dimension of the data, where it is known."""
        return sources.SYNTHETIC.get(self.data_name)

    @property
    def usual_dim(self) -> int:
        """m of the recipe."""
        return int(recipe(self._recipe_name("maskaae"), ()).parameters["latent_dim"])

    def trained(self, system: str, latent_dim: int) -> Twin:
        """The run of a system of SYSTEMS with m = `latent_dim`."""
        settings = [*(QUICK if self.study.quick else ()), ("latent_dim", latent_dim)]
        chosen = recipe(self._recipe_name(system), settings)
        name = f"{system}-{self.data_name}-{latent_dim}"
        return Twin(self, system, self.study.trained(name, chosen, self.study.dataset(chosen)))

    @cached_property
    def test(self) -> Pixels:
        """The test split."""
        return self.study.test(recipe(self._recipe_name("aae"), ()))

    @property
    def distance_name(self) -> str:
        """What a Fréchet distance is called here: in the space of the data where they are points, not pictures."""
        return "Fréchet distance of the points" if self.true_dim else self._look.label

    def distance(self, images: Pixels) -> float:
        """The Fréchet distance of images from the test split; of points, with coordinates from 0 to 1."""
        return frechet_distance(self._features(images), self._reference)

    @cached_property
    def _look(self) -> Network:
        return network("cifar10", self.study.device)

    @cached_property
    def _reference(self) -> Features:
        return self._features(self.test)

    def _features(self, images: Pixels) -> Features:
        return images.reshape(len(images), -1) / 255.0 if self.true_dim else features(self._look, images)

    def _recipe_name(self, system: str) -> str:
        return f"{system}-{RECIPES[self.data_name]}"


@dataclass(frozen=True)
class Twin:
    """A finished run of one of the two systems."""

    twins: Twins
    system: str
    run: Run

    @cached_property
    def model(self) -> MaskAAE:
        """The model at the end of the run."""
        return cast(MaskAAE, self.run.load()[0])

    @cached_property
    def codes(self) -> Codes:
        """Unmasked codes of the test split, [N, m]."""
        return self._subject.encode(self.twins.test)

    def row(self) -> dict[str, Any]:
        """What the run came to, on the test split and as many generated images; NAC is of the active dimensions."""
        subject, test = self._subject, self.twins.test
        reconstructed = subject.decode(self.codes)
        generated = subject.decode(subject.latents(len(test), 0))
        return {
            "system": SYSTEMS[self.system],
            "m": len(self.model.mask),
            "active": len(self.model.active),
            "reconstruction_mse": float(np.square((test - reconstructed.astype(np.float64)) / 255.0).mean()),
            "generation_distance": self.twins.distance(generated),
            "nac": normalised_absolute_correlation(self.codes[:, self.model.active]),
        }

    @cached_property
    def _subject(self) -> RunSubject:
        return RunSubject(self.run, self.twins.study.device)
