from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from rae_serve import images
from rae_serve.errors import InvalidInput, RunError
from tests.waiting import wait_until
from training import checkpoint, commands, progress, trainer
from training import recipe as recipes
from training.export.bundle import export
from training.inference import Inference
from training.recipe import flat
from training.runs import Run, load_data, locked
from training.trainer import Interrupted, Trainer

CPU = torch.device("cpu")
TINY = ("filters=4", "hidden=16", "prior_hidden=16", "critic_hidden=16")


def start(path: Path, *overrides: str) -> Trainer:
    recipe = recipes.load("flexae-digits", ["steps=30", "log_every=5", "sample_every=15", *TINY, *overrides])
    dataset = load_data(recipe, "digits")
    made = Trainer(recipe, dataset, path, CPU)
    Run.create(path, recipe, dataset, "digits")
    return made


def fit_until(trainer: Trainer, step: int) -> None:
    """Train, and stop after a step that is not the last."""

    def stop(_: object) -> None:
        if trainer.state.step == step:
            trainer.stop()

    with pytest.raises(Interrupted):
        trainer.fit(stop)


def final_state(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    files = sorted((path / "checkpoints").glob("*.safetensors"))
    return load_file(files[-1]), (path / "metrics.jsonl").read_text()


def assert_equal_runs(one: Path, other: Path) -> None:
    (tensors, metrics), (other_tensors, other_metrics) = final_state(one), final_state(other)
    assert metrics == other_metrics
    assert tensors.keys() == other_tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(value, other_tensors[name]), name
    for grid in sorted((one / "samples").iterdir()):
        assert grid.read_bytes() == (other / "samples" / grid.name).read_bytes()


def test_a_run_leaves_what_one_expects(run):
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 25, 30]
    assert lines[-1]["autoencoder/reconstruction"] < lines[0]["autoencoder/reconstruction"]
    assert "validation/mse" in lines[2]
    assert {path.name for path in (run.path / "samples").iterdir()} == {"step-000000015.png", "step-000000030.png"}
    assert list((run.path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("name", "overrides", "steps"),
    [
        ("flexae-digits", ["prior_steps=4"], [7, 11]),
        ("rae-digits", [], [7]),  # its prior is fitted after the last step
        ("maskaae-digits", ["critic_hidden=16"], [7]),  # it stretches latents after the last step
    ],
)
def test_the_last_grid_of_a_stage_shows_the_model_at_its_end(tmp_path, name, overrides, steps):
    keys = ["steps=7", "sample_every=1000", "hidden=16", *overrides]
    commands.train(name, keys, None, tmp_path / "run", "cpu", resume=False)
    for folder in ("samples", "reconstructions"):
        grids = sorted(path.name for path in (tmp_path / "run" / folder).iterdir())
        assert grids == [f"step-{step:09d}.png" for step in steps]
    model, state = Run.open(tmp_path / "run").load()
    assert state.step == steps[-1]
    expected = images.encode(images.grid(Inference(model, CPU).sample(64)))
    assert (tmp_path / "run" / "samples" / grids[-1]).read_bytes() == expected
    assert not (tmp_path / "run" / "best").exists()


def test_a_slow_run_shows_a_grid_early_and_is_otherwise_the_same(tmp_path, monkeypatch):
    start(tmp_path / "fast").fit()
    monkeypatch.setattr(trainer, "_FIRST_GRID_SECONDS", 1e-9)
    start(tmp_path / "slow").fit()
    assert_equal_runs(tmp_path / "fast", tmp_path / "slow")
    more = {path.name for path in (tmp_path / "slow" / "samples").iterdir()} - {
        path.name for path in (tmp_path / "fast" / "samples").iterdir()
    }
    assert more == {"step-000000001.png"}


@pytest.mark.parametrize("stop_at", [7, 30, 33])
def test_a_stopped_and_resumed_run_equals_one_that_never_stopped(tmp_path, stop_at):
    overrides = ("prior_steps=8", "prior_batch_size=32", "prior_whitened=true", "average=0.9", "decay=0.5")
    overrides += ("horizontal_flip=true",)
    start(tmp_path / "whole", *overrides).fit()
    stopped = start(tmp_path / "stopped", *overrides)
    fit_until(stopped, stop_at)
    resumed = Trainer(stopped.recipe, stopped.dataset, stopped.run, CPU)
    resumed.resume()
    assert resumed.state.step == stop_at
    resumed.fit()
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")


def test_the_prior_of_flipped_images_sees_the_codes_of_both(tmp_path):
    made = start(tmp_path / "run", "steps=1", "prior_steps=1", "horizontal_flip=true")
    made.fit()
    images = made.dataset.images[made.dataset.train]
    mirrored = Inference(made.model, CPU).encode(np.ascontiguousarray(images[:, :, ::-1]))
    rows = made.stages[1].rows
    assert len(rows) == 2 * len(images)
    np.testing.assert_allclose(rows[len(images) :], mirrored, atol=1e-6)
    assert not np.allclose(rows[: len(images)], mirrored, atol=1e-2)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    begun = start(tmp_path / "run")
    resumed = Trainer(begun.recipe, begun.dataset, begun.run, CPU)
    resumed.resume()
    assert resumed.state.step == 0


def test_a_run_whose_folder_cannot_be_filled_leaves_none(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "model_dump", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start(tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(600)
def test_a_killed_and_resumed_run_equals_one_that_never_stopped(tmp_path):
    """The real command, killed at random moments, most of them in the middle of writing."""
    words = ["train", "flexae-digits", "--steps", "150", "--set", "sample_every=20", "--set", "prior_steps=50"]
    # A checkpoint after every step.
    eager = "import training.trainer as t; t._SAVING_SECONDS, t._SAVING_SHARE = 0.0, 1e9"
    command = [sys.executable, "-c", f"{eager}; from rae_serve.cli.main import main; main()", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = tmp_path / "killed"
    moments = random.Random(0)
    for kill in range(3):
        resume = ["--resume"] if kill else []
        process = subprocess.Popen([*command, "--out", killed, *resume], env=environment)
        target = (kill + 1) * 60 + moments.randrange(-10, 10)  # the third is in the second stage

        def reached(process: subprocess.Popen[bytes] = process, target: int = target) -> bool:
            assert process.poll() is None, "it ended before it could be killed"
            return any(int(path.stem[5:]) >= target for path in killed.glob("checkpoints/step-*.safetensors"))

        wait_until(reached, 120, f"a checkpoint of step {target} or later", pause=0.001)
        time.sleep(moments.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    plain = [sys.executable, "-m", "rae_serve.cli", *words, "--out"]
    for arguments in ([*plain, killed, "--resume"], [*plain, tmp_path / "whole"]):
        subprocess.run(arguments, env=environment, check=True, capture_output=True, timeout=120)
    assert_equal_runs(tmp_path / "whole", killed)


def training(path: Path, *words: object) -> subprocess.Popen[str]:
    """Start a training, and wait until it has saved its first checkpoint."""
    command = [sys.executable, "-m", "rae_serve.cli", "train", "flexae-digits", "--out", path, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: list(path.glob("checkpoints/*.safetensors")), 60, "the first checkpoint")
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number):
    process = training(tmp_path / "run")
    process.send_signal(number)
    if number == signal.SIGHUP:  # a terminal that closes sends it, and its shell may send it too
        process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in out
    assert f"stopped at step {checkpoint.latest(tmp_path / 'run' / 'checkpoints').step:,}" in out


def test_a_closed_terminal_does_not_end_what_nohup_started(tmp_path, monkeypatch):
    running = start(tmp_path / "run")
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(running, "fit", lambda report: os.kill(os.getpid(), signal.SIGHUP))
        progress.fit(running, Console(file=io.StringIO()))
        assert not running._stopping
    finally:
        signal.signal(signal.SIGHUP, usual)


def test_only_one_training_has_a_run_and_a_crash_frees_it(tmp_path):
    process = training(tmp_path / "run")
    for words in (["--resume"], []):
        command = [sys.executable, "-m", "rae_serve.cli", "train", "flexae-digits", "--out", tmp_path / "run", *words]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (second.returncode, second.stdout) == (2, "")
        assert f"{tmp_path / 'run'} is in use by " in second.stderr
        assert second.stderr.count("\n") == 1
    assert process.poll() is None
    Run.open(tmp_path / "run").load()  # an export reads what is saved
    process.kill()
    process.communicate(timeout=60)
    with locked(tmp_path / "run"), pytest.raises(RunError, match="in use by another"), locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


def test_a_lock_left_behind_does_not_make_a_folder_used(tmp_path):
    with locked(tmp_path):
        pass
    start(tmp_path, "steps=1").fit()
    assert Run.open(tmp_path).load()[1].step == 1


def test_without_a_terminal_progress_is_a_line_now_and_then(tmp_path, monkeypatch):
    running, shown = start(tmp_path / "run"), io.StringIO()
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.ProgressLine(running, Console(file=shown)) as line:
        for second in range(3600):  # a step a second
            now[0] = 1000.0 + second
            running.state.step = running.state.stage_step = second
            line.report({"autoencoder/reconstruction": 0.5})
    lines = shown.getvalue().splitlines()
    steps = [int(re.search(r"autoencoder ([\d,]+)", text)[1].replace(",", "")) for text in lines]
    assert steps[:2] == [30, 60]
    assert 10 < len(steps) < 30
    assert max(np.diff(steps)) == 300
    assert re.fullmatch(r"\d\d:\d\d:\d\d  100%  autoencoder 30  1\.0 steps/s  a/reconstruction 0\.5", lines[0])


def test_a_reader_that_is_gone_does_not_end_a_training(tmp_path, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(progress, "_LINE_SECONDS", (0.0, 0.0))
    running = start(tmp_path / "run")
    progress.fit(running, Console(file=Gone()))
    assert running.finished


def test_a_run_is_resumed_and_evaluated_from_any_folder(tmp_path, monkeypatch, command, fails):
    (tmp_path / "here" / "sub").mkdir(parents=True)
    np.save(tmp_path / "here" / "mine.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))
    monkeypatch.chdir(tmp_path / "here")
    words = ["train", "flexae-digits", "--steps", 2, *(word for key in TINY for word in ("--set", key))]
    assert command(*words, "--data", "mine.npy", "--out", "run")[0] == 0
    monkeypatch.chdir(tmp_path / "here" / "sub")
    assert Run.open(Path("../run")).image_source() == str(tmp_path / "here" / "mine.npy")
    assert command(*words, "--out", "../run", "--resume")[0] == 0
    (tmp_path / "here" / "mine.npy").rename(tmp_path / "moved.npy")
    problem = (
        f"../run was trained on '{tmp_path / 'here' / 'mine.npy'}', which is not there; give its place by --data"
    )
    fails([*words, "--out", "../run", "--resume"], problem)
    fails(["evaluate", "../run"], problem)
    assert command(*words, "--out", "../run", "--resume", "--data", tmp_path / "moved.npy")[0] == 0
    assert command("export", "../run", "--out", "bundle")[0] == 0
    assert str(tmp_path) not in Path("bundle/manifest.json").read_text()


def test_divergence_stops_with_step_term_and_checkpoint(tmp_path):
    with pytest.raises(RunError, match=r"diverged at step \d+: \w+/\w+ is .*last good checkpoint is of step 0"):
        start(tmp_path / "run", "critic_lr=1e6").fit()
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").step == 0


def test_a_full_disk_loses_no_checkpoint(tmp_path, monkeypatch):
    running = start(tmp_path / "run")
    monkeypatch.setattr(trainer, "_SAVING_SECONDS", 0.0)
    monkeypatch.setattr(trainer, "_SAVING_SHARE", 1.0)
    fsync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 9:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device; the earlier checkpoints are untouched"):
        running.fit()
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").step > 0
    assert not list((tmp_path / "run").rglob("*.draft"))


def test_the_best_checkpoint_is_chosen_by_held_out_images(tmp_path, monkeypatch):
    errors = iter([0.3, 0.1, 0.2])
    update = Trainer._update_best
    monkeypatch.setattr(Trainer, "_update_best", lambda self, _: update(self, next(errors)))
    judged = start(tmp_path / "run", "sample_every=10")
    judged.fit()
    assert judged.state.least_error == (20, 0.1)
    assert judged.state.latest_error == (30, 0.2)
    assert [path.name for path in judged.best.glob("*")] == ["step-000000020.safetensors"]
    _, state = Run.open(tmp_path / "run").load(best=True)
    assert state.step == 20


def test_without_held_out_images_there_is_no_best(tmp_path):
    start(tmp_path / "run", "validation=0.0").fit()
    assert "validation/mse" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert list((tmp_path / "run" / "reconstructions").iterdir())
    with pytest.raises(RunError, match="best"):
        Run.open(tmp_path / "run").load(best=True)


@pytest.mark.parametrize(("further", "told"), [(0, True), (4, False)])
def test_the_checkpoint_from_before_is_offered_where_it_is_whole(tmp_path, monkeypatch, capsys, further, told):
    """It has none of the prior's further steps."""
    errors = iter([0.1, 0.3, 0.3])
    update = Trainer._update_best
    monkeypatch.setattr(Trainer, "_update_best", lambda self, _: update(self, next(errors)))
    keys = ["steps=30", "sample_every=15", f"prior_steps={further}", *TINY]
    commands.train("flexae-digits", keys, None, tmp_path / "run", "cpu", resume=False)
    assert ("export --best" in capsys.readouterr().out) == told


def test_skipped_files_are_listed_in_the_run(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(40):
        Image.new("L", (16, 16), i).save(images / f"{i}.png")
    (images / "holiday [draft].txt").write_text("no picture")
    keys = ["steps=1", "filters=2", "hidden=8", "latent_dim=4"]
    commands.train("rae-folder", keys, str(images), tmp_path / "run", "cpu", resume=False)
    assert "holiday [draft].txt: is not a readable picture" in capsys.readouterr().err
    (line,) = (tmp_path / "run" / "skipped.txt").read_text().splitlines()
    assert line.startswith(f"{images / 'holiday [draft].txt'}: ")


def test_a_run_whose_paths_are_not_utf8_is_trained_resumed_and_exported(tmp_path, capsys):
    images, run = tmp_path / os.fsdecode(b"caf\xe9"), tmp_path / os.fsdecode(b"r\xe9")
    images.mkdir()
    for i in range(40):
        Image.new("L", (16, 16), i).save(images / f"{i}.png")
    (images / os.fsdecode(b"\xff.png")).write_text("no picture")
    keys = ["steps=1", "filters=2", "hidden=8", "latent_dim=4"]
    for resume in (False, True):
        commands.train("rae-folder", keys, str(images), run, "cpu", resume=resume)
        assert r"caf\xe9/\xff.png: is not a readable picture" in capsys.readouterr().err
    assert (run / "skipped.txt").read_text(encoding="utf-8").startswith(rf"{tmp_path}/caf\xe9/\xff.png: ")
    bundle = export(Run.open(run), tmp_path / os.fsdecode(b"b\xe9"))
    assert (bundle.name, bundle.manifest.training.data) == (r"b\xe9", r"caf\xe9")


def test_a_time_budget_ends_a_run(tmp_path):
    timed = start(tmp_path / "run", "steps=1_000_000", "prior_steps=1_000_000", "minutes=0.03")
    timed.fit()
    assert timed.finished
    assert timed.state.step < 1_000_000
    stages = [json.loads(line)["stage"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"autoencoder", "prior"} == set(stages)


def test_learning_rates_fall_over_the_last_part(tmp_path):
    decayed = start(tmp_path / "run", "decay=0.5")
    rates = []
    decayed.fit(lambda _: rates.append(decayed.optimizers["generator"].param_groups[0]["lr"]))
    assert rates[:16] == [rates[0]] * 16
    np.testing.assert_allclose(np.diff(rates[16:]), np.diff(rates[16:])[0])
    assert 0 < rates[-1] < 0.1 * rates[0]


def test_resuming_what_cannot_go_on_is_refused(run):
    dataset = load_data(run.recipe, "digits")
    with pytest.raises(InvalidInput, match=r"^latent_dim: .* started with 8, and cannot go on with 5"):
        run.require_same(recipes.check(flat(run.recipe) | {"latent_dim": 5}), dataset)
    other = load_data(recipes.check(flat(run.recipe) | {"validation": 0.3}), "digits")
    with pytest.raises(InvalidInput, match=r"^data: .* started on other images"):
        run.require_same(run.recipe, other)
    with pytest.raises(RunError, match="is no run"):
        Run.open(run.path / "checkpoints")


def test_a_model_without_further_prior_steps_says_so(tmp_path):
    recipe = recipes.load("aae-digits", ["prior_steps=5", "hidden=8", "critic_hidden=8"])
    with pytest.raises(InvalidInput, match="prior_steps: must be 0"):
        Trainer(recipe, load_data(recipe, "digits"), tmp_path, CPU)


@pytest.mark.gpu
def test_cuda_trains_as_the_cpu_does(tmp_path):
    """Every line of metrics is there, though the host reads losses late."""
    recipe = recipes.load("flexae-digits", ["steps=12", "log_every=1", "sample_every=5", *TINY])
    dataset = load_data(recipe, "digits")
    lines = []
    for name in ("cpu", "cuda"):
        Run.create(tmp_path / name, recipe, dataset, "digits")
        Trainer(recipe, dataset, tmp_path / name, torch.device(name)).fit()
        lines.append([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()])
    assert [(line["step"], line.keys()) for line in lines[0]] == [(line["step"], line.keys()) for line in lines[1]]
    # Random numbers differ between the devices, but not the first images and weights.
    assert lines[1][0]["autoencoder/reconstruction"] == pytest.approx(lines[0][0]["autoencoder/reconstruction"], 1e-3)


@pytest.mark.gpu
def test_a_step_on_cuda(tmp_path):
    recipe = recipes.load("flexae-digits", ["steps=3", *TINY])
    dataset = load_data(recipe, "digits")
    Run.create(tmp_path / "run", recipe, dataset, "digits")
    Trainer(recipe, dataset, tmp_path / "run", torch.device("cuda")).fit()
    resumed = Trainer(recipe, dataset, tmp_path / "run", torch.device("cuda"))
    resumed.resume()
    assert resumed.finished
