"""Training on two processes that torchrun starts: the same run as on one process, and as hard to break."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rae_serve.errors import InvalidInput
from tests.waiting import wait_until
from training import checkpoint, commands, distributed
from training.data.batches import Batches
from training.distributed import World

# No batch norm; noise in most updates; then a prior that is fitted and trained by steps of its own.
JOINT = 300
TINY = [
    f"steps={JOINT}",
    "hidden=16",
    "critic_hidden=16",
    "critic_steps=1",
    "sample_every=100",
    "horizontal_flip=true",
]
PRIOR = ["posthoc=second-stage", "posthoc_hidden=16", "prior_steps=150", "prior_batch_size=32"]

COMMAND = ["-m", "rae_serve.cli"]
CPU = torch.device("cpu")
# The command, with a checkpoint after every step, and the process of each rank in a file.
EAGER = """
import os, sys
from pathlib import Path
import training.trainer
training.trainer._SAVING_SECONDS, training.trainer._SAVING_SHARE = 0.0, 1e9
Path(os.environ["PROCESSES"], os.environ["RANK"]).write_text(str(os.getpid()))
from rae_serve.cli.main import main
main()
"""


def torchrun(program: list[object], folder: Path, *words: object) -> subprocess.Popen[str]:
    """Start two processes of a program in a folder."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *program]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PROCESSES": str(folder)}
    return subprocess.Popen(
        [*launcher, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def training(path: Path, recipe: str, keys: list[str], *words: str) -> list[object]:
    """Return the words of a command that trains a run."""
    settings = [word for key in keys for word in ("--set", key)]
    return ["train", recipe, "--device", "cpu", "--out", path, *settings, *words]


def train_on_two(path: Path, recipe: str, keys: list[str], *words: str) -> tuple[int, str, list[str]]:
    """Train a run on two processes; return the exit status, stdout, and what rae-serve printed on stderr."""
    return ended(torchrun(COMMAND, path.parent, *training(path, recipe, keys, *words)))


def ended(process: subprocess.Popen[str]) -> tuple[int, str, list[str]]:
    out, err = process.communicate(timeout=100)
    return process.returncode, out, [line for line in err.splitlines() if line.startswith("rae-serve: ")]


def final_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.paths(path / "checkpoints")[-1])


def test_two_processes_train_the_model_of_one(tmp_path):
    # Rounding errors grow from step to step, so the run is short.
    keys = [*TINY, *PRIOR, "steps=8", "prior_steps=4", "sample_every=4"]
    commands.train("aae-digits", keys, None, tmp_path / "one", "cpu", resume=False)
    assert train_on_two(tmp_path / "two", "aae-digits", keys)[0] == 0
    one, two = final_tensors(tmp_path / "one"), final_tensors(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert torch.equal(one["random/cpu"], two["random/cpu"])


def test_the_statistics_of_batch_norms_are_averaged(tmp_path):
    keys = ["steps=1", "hidden=16", "filters=4"]
    commands.train("rae-digits", keys, None, tmp_path / "one", "cpu", resume=False)
    assert train_on_two(tmp_path / "two", "rae-digits", keys)[0] == 0
    one, two = final_tensors(tmp_path / "one"), final_tensors(tmp_path / "two")
    # The inputs of the first batch norm depend on no other, so the mean over both halves is that of the batch.
    first = next(name for name in one if name.startswith("model/encoder") and name.endswith("running_mean"))
    torch.testing.assert_close(two[first], one[first])
    assert one[first].any()


@pytest.mark.timeout(400)
def test_a_run_that_loses_processes_ends_with_one_error_and_goes_on(tmp_path):
    program, path, keys = tmp_path / "eager.py", tmp_path / "run", TINY + PRIOR
    program.write_text(EAGER)
    assert train_on_two(tmp_path / "whole", "aae-digits", keys)[0] == 0
    # The run is first stopped in order. Then one process is killed in the joint training, the other in the prior's.
    step = 0
    for least, rank, words in [(0, None, []), (0, 1, ["--resume"]), (JOINT, 0, ["--resume"])]:
        step = max(step, least) + 20
        process = torchrun([program], tmp_path, *training(path, "aae-digits", keys, *words))

        def reached(process: subprocess.Popen[str] = process, step: int = step) -> bool:
            assert process.poll() is None, process.communicate()
            return any(int(file.stem[5:]) >= step for file in path.glob("checkpoints/step-*.safetensors"))

        wait_until(reached, 100, f"a checkpoint of step {step} or later", pause=0.001)
        if rank is None:
            process.send_signal(signal.SIGTERM)
            status, out, errors = ended(process)
            assert errors == []
            assert f"stopped at step {checkpoint.latest(path / 'checkpoints').step} and saved" in out
        else:
            os.kill(int((tmp_path / str(rank)).read_text()), signal.SIGKILL)
            status, _, (error,) = ended(process)
            assert "has lost one of its 2 processes" in error
            assert "--resume" in error
        assert status != 0
        saved = checkpoint.latest(path / "checkpoints").step
        assert saved >= step
        step = saved
    assert train_on_two(path, "aae-digits", keys, "--resume")[0] == 0
    whole, resumed = final_tensors(tmp_path / "whole"), final_tensors(path)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (path / "metrics.jsonl").read_text()


def test_what_ends_all_processes_is_told_once(tmp_path):
    keys = ["hidden=16", "filters=4", "critic_lr=1e6"]
    status, out, (error,) = train_on_two(tmp_path / "run", "flexae-digits", keys)
    assert status != 0
    assert out == ""
    assert error.startswith("rae-serve: training diverged at step ")


def test_a_command_that_runs_in_one_process_refuses_several_before_it_writes(tmp_path):
    process = torchrun(COMMAND, tmp_path, "quickstart", ".")
    out, err = process.communicate(timeout=100)
    (error,) = (line for line in err.splitlines() if line.startswith("rae-serve: "))
    assert error.startswith("rae-serve: quickstart: runs in one process, but torchrun has started 2")
    # torchrun's own status is 1, and its report has that of the process that ended first.
    assert process.returncode != 0
    assert re.search(r"exitcode *: 2\b", err)
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["compare", "ae-digits"], ["study", "priors-2d", "--quick"]], ids=lambda words: words[0]
)
def test_other_commands_that_run_in_one_process(monkeypatch, fails, tmp_path, words):
    monkeypatch.setattr(distributed, "joined", lambda device: nullcontext((World(0, 2), CPU)))
    fails([*words, "--out", tmp_path / "out"], f"{words[0]}: runs in one process, but torchrun has started 2")
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_the_processes_cannot_share_is_refused():
    World(0, 2).require_divisible("batch_size", 64)
    with pytest.raises(
        InvalidInput, match="must be a multiple of the 2 processes, which share a batch, not 63"
    ) as raised:
        World(0, 2).require_divisible("batch_size", 63)
    assert raised.value.field == "batch_size"


def test_each_process_takes_its_rows_of_a_batch():
    rows = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1), np.uint8)

    def batches(world: World) -> Batches:
        return Batches(rows, np.arange(50), 12, 3, torch.device("cpu"), flip=True, world=world)

    parts, whole = [batches(World(rank, 3)) for rank in range(3)], batches(World())
    for _ in range(10):  # more than an epoch
        assert torch.equal(torch.cat([next(part) for part in parts]), next(whole))
    assert torch.equal(next(parts[1].whole()), next(whole))


@pytest.mark.parametrize(
    "draw",
    [
        lambda rows: torch.randn(rows, 5),
        lambda rows: torch.rand((rows, 1, 1)),
        lambda rows: torch.randn_like(torch.empty(rows, 5)),
        lambda rows: torch.rand_like(torch.empty(rows, 2, 3), dtype=torch.float64),
    ],
)
def test_each_process_takes_its_rows_of_noise(draw):
    def drawn(world: World) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        with world.shared_noise():
            return draw(12 // world.size), torch.rand(()), torch.get_rng_state()

    whole, number, state = drawn(World())
    parts = [drawn(World(rank, 3)) for rank in range(3)]
    assert torch.equal(torch.cat([rows for rows, _, _ in parts]), whole)
    for _, other_number, other_state in parts:
        assert torch.equal(other_number, number)
        assert torch.equal(other_state, state)
