"""`rae-serve compare`: several systems under one budget, in a table and a picture."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import multivariate_normal

from rae_serve.errors import InvalidInput, RunError
from training.comparison import commands
from training.comparison.measure import COLUMNS, Measured, measure
from training.evaluation import held_out
from training.evaluation.features.extractors import load_extractor
from training.evaluation.held_out import spaced
from training.inference import Inference
from training.runs import Run, load_data

SMALL = [word for key in ("steps=12", "filters=4", "hidden=16", "latent_dim=4") for word in ("--set", key)]
SET = [*SMALL, "--set", "prior_hidden=8", "--set", "critic_hidden=8", "--set", "prior_steps=0"]
NAMES = ("rae-digits", "vae-digits", "flexae-digits")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparisons") / "out"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "comparison.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_a_picture_and_a_page(command, out):
    status, stdout, _ = command("compare", *NAMES, *SET, "--seeds", 2, "--out", out)
    assert status == 0
    assert f"{out / 'comparison.html'}" in stdout
    table = rows(out)
    assert [(row["recipe"], row["seed"]) for row in table] == [(name, seed) for name in NAMES for seed in "01"]
    assert list(table[0]) == ["recipe", "system", "prior", "seed", *COLUMNS, "training_distance", "failure"]
    assert len({row["training_distance"] for row in table}) == 1
    for row in table:
        assert row["failure"] == ""
        assert all(float(row[name]) >= 0 for name in COLUMNS if name != "log_density_gain")
        assert (row["log_density_gain"] == "") == (row["system"] == "flexae")
        assert (row["steps"], row["dimensions"]) == ("12", "4")
    assert {row["prior"] for row in table if row["system"] == "rae"} == {"mixture"}
    assert table[0]["mse"] != table[1]["mse"]
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("<strong>") >= sum(bool(column.best) for column in COLUMNS.values())
    for name in NAMES:
        assert f"<td>{name}</td>" in page
    same, different = page.split("<h2>The same for all")[1].split("What differs")
    assert "filters 4, " in same
    assert "<td>likelihood</td><td></td><td>cross-entropy</td><td></td>" in different
    for text in (Run.open(out / "runs" / "vae-digits-0").data.digest, "torch ", "seeds 0, 1", "--set=steps=12"):
        assert text in page
    with Image.open(out / "comparison.png") as picture:
        assert picture.width > 1000


def test_finished_runs_and_their_figures_are_used_again(command, out, monkeypatch):
    before = (out / "comparison.csv").read_bytes()
    monkeypatch.setattr("training.reuse.fit", lambda *_: 1 / 0)
    monkeypatch.setattr(commands, "measure", lambda *_: 1 / 0)
    assert command("compare", *NAMES, *SET, "--seeds", 2, "--out", out)[0] == 0
    assert (out / "comparison.csv").read_bytes() == before


def test_a_run_of_another_recipe_is_refused(fails, out):
    fails(["compare", *NAMES, *SET, "--set", "lr=0.5", "--out", out], "lr", "was started with")


def test_every_run_is_checked_before_the_first_is_trained(fails, command, tmp_path):
    assert command("compare", "vae-digits", *SMALL, "--seeds", 2, "--out", tmp_path / "out")[0] == 0
    words = ["compare", "rae-digits", "vae-digits", *SMALL, "--set", "lr=0.5", "--out", tmp_path / "out"]
    fails(words, "lr", "was started with")
    assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == ["vae-digits-0", "vae-digits-1"]


def test_networks_are_those_of_the_first_recipe():
    found = commands._recipes(["vae-mnist-small", "flexae-mnist", "aae-mnist-small"], [], None, 3.0)
    assert {recipe.parameters["filters"] for recipe in found[:2]} == {32}
    assert {recipe.parameters["hidden"] for recipe in found} == {512}
    assert {recipe.minutes for recipe in found} == {3.0}


def test_images_are_prepared_as_the_first_recipe_says():
    changes = ["posthoc=mixture", "posthoc_components=3", "seed=5"]
    with pytest.raises(InvalidInput, match=r"data.*digits and mnist"):
        commands._recipes(["vae-digits", "flexae-mnist-small"], [], None, None)
    found = commands._recipes(["vae-digits", "flexae-mnist-small"], changes, "photographs", None)
    assert {(recipe.data, recipe.seed) for recipe in found} == {("digits", 5)}
    assert {recipe.parameters["posthoc_components"] for recipe in found} == {3}
    assert [recipe.steps for recipe in found] == [1500, 10_000]


def test_the_density_of_a_masked_system_is_that_of_its_open_dimensions(masked):
    """A closed dimension has hardly any variance: N(0, 1) fits it so badly that the figure would say nothing else."""
    images = held_out.of_dataset(load_data(masked.recipe, "digits"), masked.recipe, "digits")
    extractor = load_extractor("cifar10", torch.device("cpu"))
    found = measure(masked, images, extractor, 100, torch.device("cpu"), lambda *_: None).figures
    assert (found["dimensions"], found["active"]) == (8, 4)
    model = masked.load()[0].for_export(torch.zeros(8)).model
    spread = Inference(model, torch.device("cpu")).encode(images.train)
    gaussian = multivariate_normal(spread.mean(axis=0), np.cov(spread, rowvar=False))
    normal = multivariate_normal(np.zeros(4), np.eye(4))
    latents = Inference(model, torch.device("cpu")).encode(spaced(images.held_out, 100))
    expected = normal.logpdf(latents).mean() - gaussian.logpdf(latents).mean()
    assert found["log_density_gain"] == pytest.approx(expected, abs=1e-3 * abs(expected) + 1e-3)


def test_a_run_that_fails_has_a_row_and_the_others_go_on(command, tmp_path, monkeypatch):
    usual = commands.finished_run

    def diverging(path: Path, *others) -> Run:
        if path.name == "vae-digits-0":
            raise RunError("training diverged at step 3")
        return usual(path, *others)

    def measured(run: Run, *others) -> Measured:
        if run.recipe.name == "beta-vae-digits":
            raise ValueError("an array must not\ncontain infs")
        return measure(run, *others)

    monkeypatch.setattr(commands, "finished_run", diverging)
    monkeypatch.setattr(commands, "measure", measured)
    names = ("rae-digits", "vae-digits", "beta-vae-digits")
    status, _, err = command("compare", *names, *SMALL, "--out", tmp_path / "out")
    assert status == 1
    assert "failed: vae-digits-0, beta-vae-digits-0; the page" in err
    failures = ["", "training diverged at step 3", "ValueError: an array must not contain infs"]
    assert [row["failure"] for row in rows(tmp_path / "out")] == failures
    assert "training diverged at step 3" in (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")


def test_an_interrupted_comparison_goes_on(command, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(commands, "measure", interrupted)
        status, _, err = command("compare", "vae-digits", *SMALL, "--out", tmp_path / "out")
        assert status == 130
        assert "the same command goes on from there" in err
    assert command("compare", "vae-digits", *SMALL, "--out", tmp_path / "out")[0] == 0
    assert len(rows(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["vae-digit"], ["did you mean vae-digits?"]),
        (["vae-digits", "vae-digits"], ["vae-digits is named twice"]),
        (["vae-digits", "--seeds", "0"], ["--seeds", "at least 1"]),
        (["vae-digits", "--minutes", "0"], ["minutes"]),
        (["vae-digits", "--set", "colour=3"], ["colour", "no key of any"]),
        (["vae-digits", "--set", "latent_dim"], ["--set", "key=value"]),
        (["vae-digits", "--data", "nowhere"], ["nowhere"]),
        (["vae-digits", "flexae-mnist-small"], ["--data", "digits and mnist"]),
        (["vae-digits", "--data", "few.npy"], ["data", "2 images are held out of", "needs at least 20"]),
        (["vae-digits", "rae-digits", "--set", "prior_steps=3"], ["prior_steps"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(fails, tmp_path, monkeypatch, words, texts):
    monkeypatch.chdir(tmp_path)
    np.save("few.npy", np.zeros((40, 8, 8, 1), np.uint8))
    fails(["compare", *words, "--out", tmp_path / "out"], *texts)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(fails, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    fails(["compare", "vae-digits", *SMALL, "--out", tmp_path], "in use")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
