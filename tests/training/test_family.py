"""The way of every system from its recipe to images: trained, resumed, exported, and run from its bundle."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from rae_serve.engine import Engine
from rae_serve.errors import RunError
from tests.training.test_trainer import assert_equal_runs, fit_until
from training import recipe as recipes
from training.export.bundle import export
from training.inference import Inference
from training.runs import Run, load_data
from training.trainer import Trainer

CPU = torch.device("cpu")
CONV = ("steps=20", "log_every=5", "sample_every=10", "latent_dim=4", "filters=4", "hidden=16")
SYSTEMS = {
    "vae": ("vae-digits", CONV),
    "vae-learned-variance": ("vae-digits", (*CONV, "likelihood=learned-variance")),
    "rae": ("rae-digits", (*CONV, "posthoc_components=4")),
    "rae-spectral-norm": ("rae-sn-digits", (*CONV, "posthoc_components=4")),
    "rae-gan": ("rae-folder", (*CONV, "adversarial_start=0.2", "perceptual=1", "posthoc_components=4")),
    "injflow": ("injflow-digits", CONV),
    "vamp-vae": ("vamp-vae-digits", (*CONV, "components=5")),
    "iop-vae": ("iop-vae-digits", (*CONV, "ratio_hidden=8", "ratio_steps=2")),
    "flow-vae": ("flow-vae-digits", CONV),
    "rae-flow": ("rae-flow-digits", (*CONV, "prior_steps=5", "posthoc_hidden=8")),
    "two-stage-vae": ("two-stage-vae-digits", (*CONV, "prior_steps=5", "posthoc_hidden=8")),
    "ae": ("ae-digits", (*CONV, "posthoc_components=1")),
}


def start(system: str, path) -> Trainer:
    name, overrides = SYSTEMS[system]
    recipe = recipes.load(name, overrides)
    dataset = load_data(recipe, "digits")
    Run.create(path, recipe, dataset, "digits")
    return Trainer(recipe, dataset, path, CPU)


@pytest.fixture(scope="module", params=SYSTEMS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp(request.param) / "run"
    start(request.param, path).fit()
    return Run.open(path)


def test_images_of_the_bundle_are_those_of_torch(run, tmp_path):
    bundle = export(run, tmp_path / "bundle")
    engine = Engine(bundle, device="cpu")
    inference = Inference(run.load()[0], CPU)
    assert np.abs(engine.sample(40, seed=9).astype(int) - inference.sample(40, seed=9)).max() <= 1
    images = run.reference()[:40]
    np.testing.assert_allclose(engine.encode(images), inference.encode(images), rtol=1e-4, atol=1e-4)
    one_by_one = [engine.sample(1, seed=9, offset=row)[0] for row in range(7)]
    assert np.array_equal(engine.sample(7, seed=9), one_by_one)
    start, end = engine.noise(2, seed=3)
    way = engine.interpolate(start, end, 5, space="noise", path="spherical")
    assert np.array_equal(way[[0, -1]], engine.sample(2, seed=3))
    engine.close()


@pytest.mark.parametrize(
    ("system", "stop_at"),
    [*product(["vae", "rae", "vamp-vae", "iop-vae"], [9, 19]), ("rae-flow", 22), ("rae-gan", 9)],
)
def test_a_stopped_and_resumed_run_equals_one_that_never_stopped(tmp_path, system, stop_at):
    """The prior of a RAE is fitted with the last joint step, which is the 20th; a flow then trains further."""
    start(system, tmp_path / "whole").fit()
    stopped = start(system, tmp_path / "stopped")
    fit_until(stopped, stop_at)
    resumed = Trainer(stopped.recipe, stopped.dataset, stopped.run, CPU)
    resumed.resume()
    resumed.fit()
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")


def test_a_prior_that_is_not_fitted_yet_is_not_exported(tmp_path):
    begun = start("rae", tmp_path / "run")
    fit_until(begun, 12)
    run = Run.open(tmp_path / "run")
    with pytest.raises(RunError, match=r"is not finished: its prior is fitted at the end.*--resume"):
        export(run, tmp_path / "bundle")
    resumed = Trainer(begun.recipe, begun.dataset, begun.run, CPU)
    resumed.resume()
    resumed.fit()
    with pytest.raises(RunError, match=r"comes from before the prior was fitted.*without --best"):
        export(run, tmp_path / "bundle", best=True)
    assert not (tmp_path / "bundle").exists()
    assert export(run, tmp_path / "bundle").manifest.noise.roles == ["choice", *["gaussian"] * 4]
