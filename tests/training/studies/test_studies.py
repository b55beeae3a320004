"""Studies on scikit-learn's digits with runs of a few steps: what they write, and that they can be continued."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from rich.console import Console

from rae_serve.cli import training as cli
from rae_serve.errors import InvalidInput
from training.runs import Run
from training.studies import bias_variance, capacity, commands, nearest_neighbours, priors_2d, twins
from training.studies.study import Study, recipe
from training.trainer import Trainer

MODULES = {"priors-2d": priors_2d, "bias-variance": bias_variance, "nearest-neighbours": nearest_neighbours}
MASKED = ("mask-trajectory", "latent-covariance", "capacity")
TINY = (("steps", 4), ("filters", 4), ("hidden", 16), ("prior_hidden", 8), ("critic_hidden", 8), ("sample_every", 4))
EXTRA = {"priors-2d": (("latent_dim", 2),), "bias-variance": (), "nearest-neighbours": ()}


@pytest.fixture
def tiny(monkeypatch):
    for name, module in MODULES.items():
        settings = TINY + EXTRA[name]
        if name == "bias-variance":
            settings = tuple(pair for pair in settings if pair[0] != "prior_hidden")
        monkeypatch.setattr(module, "QUICK", settings)
    monkeypatch.setattr(
        twins, "QUICK", (("steps", 4), ("hidden", 16), ("critic_hidden", 8), ("sample_every", 2), ("log_every", 1))
    )


def study(out: Path) -> Study:
    return Study(out, None, True, torch.device("cpu"), Console(file=io.StringIO()))


@pytest.mark.parametrize("name", [*MODULES, *MASKED])
def test_a_study_writes_data_pictures_and_a_page_and_trains_once(name, tiny, tmp_path, monkeypatch, capsys):
    commands.study(name, None, tmp_path, True, "cpu")
    assert name in capsys.readouterr().out
    with (tmp_path / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / f"{name}.md").read_text()
    for line in page.splitlines():
        if "](" in line:
            for link in line.split("](")[1:]:
                assert (tmp_path / link.split(")")[0]).is_file()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".csv", ".md")}
    monkeypatch.setattr(Trainer, "fit", lambda *_: pytest.fail("trained again"))
    commands.study(name, None, tmp_path, True, "cpu")
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".csv", ".md")}


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    chosen = recipe("flexae-digits", TINY)
    one = study(tmp_path)
    dataset = one.dataset(chosen, 200)
    steps: list[int] = []
    step = Trainer._train_step

    def interrupted(self: Trainer) -> dict[str, float]:
        steps.append(self.state.step)
        if len(steps) == 2:
            self.stop()
        return step(self)

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.trained("run", chosen, dataset)
    one.trained("run", chosen, dataset)
    assert steps == [0, 1, 2, 3]


def test_a_run_of_other_settings_is_not_taken_for_this_one(tmp_path):
    one = study(tmp_path)
    chosen = recipe("flexae-digits", TINY)
    one.trained("run", chosen, one.dataset(chosen, 200))
    other = recipe("flexae-digits", [*TINY, ("seed", 3)])
    with pytest.raises(InvalidInput, match="seed"):
        one.trained("run", other, one.dataset(other, 200))


def test_limited_data_are_the_first_training_images(tmp_path):
    chosen = recipe("flexae-digits", TINY)
    whole, limited = study(tmp_path).dataset(chosen), study(tmp_path).dataset(chosen, 100)
    assert (limited.train == whole.train[:100]).all()
    assert (limited.validation == whole.validation).all()


def test_the_capacities_grow():
    sizes = [layers * hidden for layers, hidden in bias_variance.CAPACITIES]
    assert sizes == sorted(sizes)
    assert len(sizes) == len(bias_variance.PUBLISHED)


def test_the_help_names_every_study():
    (argument,) = get_type_hints(cli.study, include_extras=True)["name"].__metadata__
    assert {*re.findall(r"[a-z0-9-]+", argument.help)} - {"or"} == {*commands.STUDIES} == {*MODULES, *MASKED}


def test_an_unknown_study_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"'fig-8'.*priors-2d"):
        commands.study("fig-8", None, tmp_path, True, "cpu")


def test_studies_of_the_mask_share_their_runs(tiny, tmp_path):
    for name in MASKED:
        commands.study(name, None, tmp_path, True, "cpu")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(
        f"{system}-digits-{m}" for system in twins.SYSTEMS for m in capacity.CAPACITIES["digits"]
    )


def test_the_mask_in_the_trajectory_is_that_of_the_run(tiny, tmp_path):
    commands.study("mask-trajectory", None, tmp_path, True, "cpu")
    with (tmp_path / "mask-trajectory.csv").open() as file:
        *_, last = csv.DictReader(file)
    model, _ = Run.open(tmp_path / "runs" / "maskaae-digits-24").load()
    assert int(last["step"]) == 4
    assert [float(last[f"alpha_{i}"]) for i in range(24)] == pytest.approx(model.mask.tolist(), abs=1e-4)
    assert int(last["active"]) == len(model.active)


def test_a_distance_of_points_is_in_their_own_space(tmp_path, monkeypatch):
    points = Study(tmp_path, "synthetic-8", False, torch.device("cpu"), Console(file=io.StringIO()))
    found = twins.Twins.of(points)
    assert (found.true_dim, found.recipe_dim) == (8, 16)
    assert found.distance(found.test_images) == pytest.approx(0.0, abs=1e-9)
    brighter = np.minimum(found.test_images, 155) + 100  # clips some, moves all
    shift = (brighter.mean(axis=0, dtype=float) - found.test_images.mean(axis=0, dtype=float)) / 255.0
    assert found.distance(brighter) > np.square(shift).sum() > 1.0


def test_data_without_recipes_of_the_mask_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"data: .*synthetic-16.*not for 'cifar10'"):
        commands.study("capacity", "cifar10", tmp_path, False, "cpu")
