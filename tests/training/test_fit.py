"""`rae-serve fit`: another prior on the finished auto-encoder of a run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from tests.training.test_trainer import TINY, assert_equal_runs
from training import checkpoint, trainer
from training.inference import Inference
from training.priors import mixture
from training.runs import Run
from training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.mark.parametrize("prior", ["mixture", "generator"])
def test_the_auto_encoder_stays_and_samples_match_its_latents(command, run, tmp_path, prior):
    status, out, err = (
        command("fit", run.path, "--prior", prior, "--steps", 30, "--out", tmp_path / "fitted")
        if (prior == "generator")
        else command("fit", run.path, "--prior", prior, "--components", 7, "--out", tmp_path / "fitted")
    )
    assert (status, err) == (0, "")
    assert re.search(r"FD-cifar10 +held-out ln p", out)
    assert re.search(rf"{prior}.* \d+\.\d\d +{'none' if prior == 'generator' else '-?[0-9.]+'}\n", out)
    assert "reconstructed training images" in out
    fitted = Run.open(tmp_path / "fitted")
    (model, state), (trained, before) = fitted.load(), run.load()
    kept = [name for name in before.tensors if name.startswith("model/")]
    assert all(torch.equal(state.tensors[name], before.tensors[name]) for name in kept)
    latents = Inference(model, CPU).encode(fitted.reference())
    samples = Inference(model, CPU).latents(2000, 0)
    assert np.abs((samples.mean(axis=0) - latents.mean(axis=0)) / latents.std(axis=0)).max() < 0.3
    assert command("export", fitted.path, "--out", tmp_path / "bundle")[0] == 0
    engine = Engine(Bundle.load(tmp_path / "bundle"), device="cpu")
    assert np.abs(engine.sample(20, seed=4).astype(int) - Inference(model, CPU).sample(20, seed=4)).max() <= 1
    assert np.array_equal(
        engine.encode(run.reference()[:5]).round(3), Inference(trained, CPU).encode(run.reference()[:5]).round(3)
    )
    engine.close()
    assert (
        command("evaluate", fitted.path, "--metrics", "frechet", "-n", 100, "--out", tmp_path / "evaluation")[0] == 0
    )


def test_a_masked_model_is_fitted_on_its_active_dimensions(command, masked, tmp_path):
    assert command("fit", masked.path, "--prior", "mixture", "--components", 2, "--out", tmp_path / "fitted")[0] == 0
    fitted = Run.open(tmp_path / "fitted")
    assert fitted.origin is not None
    assert fitted.origin.active == [0, 2, 4, 6]
    model = fitted.load()[0]
    assert model.sampler.latent_dim == 4
    trained = masked.load()[0]
    mean = torch.from_numpy(Inference(trained, CPU).encode(masked.reference()).mean(axis=0))
    pruned = Inference(trained.for_export(mean).model, CPU)
    assert np.array_equal(
        Inference(model, CPU).reconstruct(masked.reference()), pruned.reconstruct(masked.reference())
    )
    assert command("export", fitted.path, "--out", tmp_path / "bundle")[0] == 0
    latent = Bundle.load(tmp_path / "bundle").manifest.latent
    assert (latent.dim, latent.trained_dim, latent.active) == (4, 8, [0, 2, 4, 6])
    assert latent.mask is not None
    again = tmp_path / "again"
    assert command("fit", fitted.path, "--prior", "generator", "--steps", 2, "--out", again)[0] == 0
    assert Run.open(again).origin == fitted.origin.model_copy(
        update={"run": "fitted", "checkpoint_digest": fitted.load()[1].digest}
    )


def test_a_stopped_and_resumed_fit_equals_one_that_never_stopped(command, run, tmp_path, monkeypatch):
    """The mixture is stopped between two numbers of components, the generator between two steps."""
    monkeypatch.setattr(mixture, "CANDIDATES", (1, 2, 3))
    for prior, extra in (("mixture", []), ("generator", ["--steps", 12])):
        whole, stopped = tmp_path / f"whole-{prior}", tmp_path / f"stopped-{prior}"
        words = ["fit", run.path, "--prior", prior, *extra, "--out"]
        assert command(*words, whole)[0] == 0
        calls = []

        def stop(self: trainer.Trainer, report=trainer.ignore, calls=calls, fit=Trainer.fit) -> None:
            def stopping(_: object) -> None:
                calls.append(None)
                if len(calls) == 2:
                    self.stop()

            fit(self, stopping)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "fit", stop)
            status, out, _ = command(*words, stopped)
        assert status == 130
        assert "continue by the same command with --resume" in out
        assert command(*words, stopped, "--resume")[0] == 0
        assert_equal_runs_of_other_names(whole, stopped)


def assert_equal_runs_of_other_names(one: Path, other: Path) -> None:
    assert_equal_runs(one, other)
    assert len(checkpoint.paths(other / "checkpoints")) <= checkpoint.KEPT


def test_the_best_checkpoint_can_be_fitted(command, fails, tmp_path):
    path = tmp_path / "run"
    small = [word for key in TINY for word in ("--set", key)]
    small += ["--set", "sample_every=5", "--set", "posthoc=mixture", "--set", "posthoc_components=2"]
    assert command("train", "flexae-digits", "--steps", 12, "--out", path, *small)[0] == 0
    fails(["export", path, "--best", "--out", tmp_path / "b"], "before the prior was fitted", f"fit {path} --best")
    assert command("fit", path, "--best", "--prior", "mixture", "--out", tmp_path / "best")[0] == 0
    best = Run.open(path).load(best=True)[1]
    assert Run.open(tmp_path / "best").origin.steps == best.step < 12
    assert command("export", tmp_path / "best", "--out", tmp_path / "bundle")[0] == 0


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--prior", "mixtur"], ["posthoc", "did you mean mixture?"]),
        (["--prior", "generator", "--components", "4"], ["posthoc_components", "is no key"]),
        (["--prior", "mixture", "--components", "0"], ["posthoc_components", "0"]),
        (["--prior", "mixture", "--components", "5000"], ["posthoc", "needs at least 5,000 images to be fitted to"]),
        (["--prior", "mixture", "--steps", "5"], ["prior_steps", "must be 0"]),
        (["--prior", "generator", "--steps", "0"], ["prior_steps", "must be above 0"]),
        (["--prior", "mixture", "--set", "filters=8"], ["filters", "is finished"]),
        (["--prior", "mixture", "--set", "validation=0.5"], ["validation", "is finished"]),
        (["--prior", "mixture", "--data", "synthetic-8"], ["data"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(fails, run, tmp_path, words, texts):
    fails(["fit", run.path, *words, "--out", tmp_path / "fitted"], *texts)
    assert not (tmp_path / "fitted").exists()


def test_only_a_finished_auto_encoder_is_taken(command, fails, tmp_path):
    path = tmp_path / "run"
    small = [word for key in TINY for word in ("--set", key)]

    def stop(self: trainer.Trainer, report=trainer.ignore, fit=Trainer.fit) -> None:
        fit(self, lambda _: self.stop())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", stop)
        assert command("train", "flexae-digits", "--steps", 5, *small, "--out", path)[0] == 130
    fails(["fit", path, "--prior", "mixture", "--out", tmp_path / "fitted"], "is not finished", "--best")
    fails(["fit", path, "--prior", "mixture", "--out", path], "in use by a run")
    fails(["fit", tmp_path / "none", "--prior", "mixture"], "no run")
