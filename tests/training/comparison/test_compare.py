"""`rae-serve compare`: several systems under one budget, in a table and a picture."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from PIL import Image

from rae_serve.errors import RunError
from training.comparison import commands
from training.comparison.measure import COLUMNS
from training.runs import Run

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
    assert list(table[0]) == ["recipe", "system", "prior", "seed", *COLUMNS, "failure"]
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


def test_networks_are_those_of_the_first_recipe(out):
    found = commands._recipes(["vae-mnist-small", "flexae-mnist", "aae-mnist-small"], [], 3.0)
    assert {recipe.parameters["filters"] for recipe in found[:2]} == {32}
    assert {recipe.parameters["hidden"] for recipe in found} == {512}
    assert {recipe.minutes for recipe in found} == {3.0}


def test_a_run_that_fails_has_a_row_and_the_others_go_on(command, tmp_path, monkeypatch):
    usual = commands.finished_run

    def diverging(path: Path, *others) -> Run:
        if path.name == "vae-digits-0":
            raise RunError("training diverged at step 3")
        return usual(path, *others)

    monkeypatch.setattr(commands, "finished_run", diverging)
    status, _, err = command("compare", *NAMES[:2], *SMALL, "--out", tmp_path / "out")
    assert status == 1
    assert "failed: vae-digits" in err
    assert [row["failure"] for row in rows(tmp_path / "out")] == ["", "training diverged at step 3"]
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
        (["vae-digits", "--data", "nowhere"], ["nowhere"]),
        (["vae-digits", "rae-digits", "--set", "prior_steps=3"], ["prior_steps"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(fails, tmp_path, words, texts):
    fails(["compare", *words, "--out", tmp_path / "out"], *texts)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(fails, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    fails(["compare", "vae-digits", *SMALL, "--out", tmp_path], "in use")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
