from __future__ import annotations

import pytest
import torch

from rae_serve.errors import RunError
from training import checkpoint
from training.checkpoint import OptimizerPart


class Weights:
    """A part of one tensor."""

    def __init__(self, value: float) -> None:
        self.value = value

    def state_dict(self):
        return {"w": torch.full((4,), self.value), "scalar": torch.tensor(1), "flag": torch.tensor(True)}


@pytest.fixture
def folder(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"model": Weights(step)}, {"stage": 0, "error": [1, 0.5]})
    return tmp_path


def test_the_latest_is_read_and_the_oldest_forgotten(folder):
    state = checkpoint.latest(folder)
    assert state.step == 3
    assert state.facts == {"stage": 0, "error": [1, 0.5]}
    assert state.section("model")["w"].tolist() == [3.0] * 4
    assert len(list(folder.iterdir())) == checkpoint.KEPT


def test_a_checkpoint_just_written_stays_beside_one_of_a_later_step(folder):
    # A run that goes back to an earlier step leaves the later checkpoints behind.
    checkpoint.save(folder, 2, {}, {}, kept=1)
    assert checkpoint.latest(folder).step == 2


def test_the_digest_is_over_tensors_facts_and_step(folder):
    def digest(step, value, facts):
        checkpoint.save(folder, step, {"model": Weights(value)}, facts)
        return checkpoint.latest(folder).digest

    digests = [digest(*made) for made in [(4, 1.0, {}), (5, 1.0, {}), (6, 2.0, {}), (7, 1.0, {"a": 1})]]
    assert len(set(digests)) == 4
    checkpoint.save(folder, 7, {"model": Weights(1.0)}, {"a": 1})
    assert checkpoint.latest(folder).digest == digests[-1]


@pytest.mark.parametrize("position", [0.02, 0.3, 0.6, -8, -1])
def test_a_flipped_bit_is_named_with_a_way_back(folder, position):
    path = folder / "step-000000003.safetensors"
    data = bytearray(path.read_bytes())
    data[int(position * len(data)) if 0 < position < 1 else position] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"step-000000003\.safetensors .*go back to step-000000002\.safetensors"):
        checkpoint.latest(folder)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_cut_file_is_named_with_a_way_back(folder, size):
    path = folder / "step-000000003.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunError, match=r"step-000000003\.safetensors .*go back to step-000000002\.safetensors"):
        checkpoint.latest(folder)


def test_another_programs_file_is_no_checkpoint(folder):
    from safetensors.torch import save_file

    save_file({"model/w": torch.zeros(4)}, folder / "step-000000009.safetensors")
    with pytest.raises(RunError, match="step-000000009"):
        checkpoint.latest(folder)


def test_what_a_killed_run_left_is_no_checkpoint_and_goes(folder):
    (folder / ".step-000000009.safetensors.draft").write_bytes(b"half")
    assert checkpoint.latest(folder).step == 3
    checkpoint.save(folder, 4, {}, {})
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_none_at_all(tmp_path):
    with pytest.raises(RunError, match="holds no checkpoint"):
        checkpoint.latest(tmp_path)


def test_optimisers_come_back_to_the_bit():
    weight = torch.nn.Parameter(torch.ones(3))
    first = torch.optim.Adam([weight], lr=0.1)
    weight.grad = torch.tensor([1.0, 2.0, 3.0])
    first.step()
    second = torch.optim.Adam([weight], lr=0.1)
    OptimizerPart(second).load_state_dict(OptimizerPart(first).state_dict())
    assert first.state_dict()["state"][0].keys() == second.state_dict()["state"][0].keys()
    for key, value in first.state_dict()["state"][0].items():
        assert torch.equal(second.state_dict()["state"][0][key], value)
