"""Training that starts from the weights of a run or of a bundle."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rae_serve.engine import Engine
from training import checkpoint
from training.data.batches import to_tensor
from training.export import bundle as exporter
from training.runs import Run
from training.starting import take_weights


def words(run: Run) -> list[str]:
    """The words of `train` that make a model like that of a run."""
    keys = {key: value for key, value in run.recipe.parameters.items() if value is not None}
    return [
        run.recipe.name,
        *(word for key, value in keys.items() for word in ("--set", f"{key}={json.dumps(value)}")),
    ]


def first_checkpoint(run: Run) -> dict[str, torch.Tensor]:
    first = min(checkpoint.paths(run.path / "checkpoints"))
    return {
        name.removeprefix("model/"): value for name, value in load_file(first).items() if name.startswith("model/")
    }


def test_a_run_goes_on_from_another(command, run, tmp_path):
    path = tmp_path / "more"
    status, out, err = command("train", *words(run), "--seed", 9, "--steps", 2, "--from", run.path, "--out", path)
    assert (status, err, "drawn at random" in out) == (0, "", False)
    source, state = run.load()
    begun = first_checkpoint(Run.open(path))
    assert begun.keys() == source.state_dict().keys()
    for name, value in source.state_dict().items():
        assert torch.equal(begun[name], value), name
    started = Run.open(path)
    assert (started.start.name, started.start.digest) == (run.path.name, state.digest)
    exported = exporter.export(started, tmp_path / "bundle")
    assert exported.manifest.training.started_from == state.digest


@pytest.mark.parametrize("precision", ["float32", "float16-weights"])
def test_a_run_goes_on_from_a_bundle(run, tmp_path, precision):
    """Batch norms are folded into a bundle's weights, so the model is another one, of the same images."""
    bundle = exporter.export(run, tmp_path / "bundle", precision=precision)
    images = run.reference()
    torch.manual_seed(9)
    model = run.recipe.build((1, 8, 8))
    start, fresh = take_weights(model, bundle.path, to_tensor(images, torch.device("cpu")))
    assert (start.name, start.digest) == ("bundle", bundle.manifest.digest)
    assert fresh == ["prior"]
    x = to_tensor(images, torch.device("cpu"))
    expected = Engine(bundle, device="cpu").reconstruct(images) / 255.0
    with torch.no_grad():
        reconstructed = model.eval().decode(model.encode(x))
        assert np.abs(reconstructed.permute(0, 2, 3, 1).numpy() - expected).max() <= 1.5 / 255
        # Normalised by the batch, which is all of the images, nothing changes.
        in_training = model.train().decode(model.encode(x))
    assert torch.allclose(in_training, reconstructed, atol=1e-3)


def test_a_killed_run_is_resumed_with_the_weights_that_it_started_from(command, fails, run, tmp_path):
    path = tmp_path / "more"
    given = ["train", *words(run), "--steps", 2, "--out", path, "--from", run.path]
    assert command(*given)[0] == 0
    expected = load_file(checkpoint.paths(path / "checkpoints")[-1])
    shutil.rmtree(path / "checkpoints")
    fails([*given[:-2], "--resume"], "--from", "was started from digits")
    assert command(*given, "--resume")[0] == 0
    resumed = load_file(checkpoint.paths(path / "checkpoints")[-1])
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
    assert command(*given[:-2], "--resume")[0] == 0  # a checkpoint has all weights


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        (["latent_dim=9"], ["latent_dim: must be 8, as in", "no weights for other dimensions"]),
        (
            ["filters=5"],
            ["--from", "has other networks: encoder.0.weight is [4, 1, 4, 4], in the recipe [5, 1, 4, 4]"],
        ),
        (["width=16", "height=16"], ["--from", "has other networks"]),
    ],
)
def test_weights_that_do_not_fit_are_refused(fails, run, tmp_path, changes, texts):
    settings = [word for change in changes for word in ("--set", change)]
    for source in (run.path, exporter.export(run, tmp_path / "bundle").path):
        fails(["train", *words(run), *settings, "--from", source, "--out", tmp_path / "more"], *texts)
        assert not (tmp_path / "more").exists()


def test_a_folder_of_anything_else_is_refused(fails, tmp_path):
    text = f"{tmp_path} is neither a run nor a bundle"
    fails(["train", "flexae-digits", "--from", tmp_path, "--out", tmp_path / "more"], text)
    fails(["train", "flexae-digits", "--from", tmp_path / "none", "--out", tmp_path / "more"], "neither a run")
