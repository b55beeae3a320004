from __future__ import annotations

import pytest
import torch

from rae_serve.errors import RunError
from training import checkpoint


@pytest.fixture
def folder(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"model/w": torch.full((4,), float(step))}, {"stage": 0})
    return tmp_path


def test_the_latest_is_read_and_the_oldest_forgotten(folder):
    state = checkpoint.latest(folder)
    assert state.step == 3
    assert state.facts == {"stage": 0}
    assert state.section("model")["w"].tolist() == [3.0] * 4
    assert len(list(folder.iterdir())) == 2 * checkpoint.KEPT


def test_a_checkpoint_just_written_stays_beside_one_of_a_later_step(folder):
    checkpoint.save(folder, 2, {}, {}, kept=1)  # as a resumed run may: the later ones are of a way that it left
    assert checkpoint.latest(folder).step == 2


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_damage_is_named_with_a_way_back(folder, suffix, harm):
    path = folder / f"step-000000003{suffix}"
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[-8] ^= 1
    elif harm == "truncate":
        data = data[: len(data) // 2]
    path.write_bytes(data)
    if harm == "remove":
        path.unlink()
        if suffix == ".json":  # without it the rest was never a checkpoint
            assert checkpoint.latest(folder).step == 2
            return
    with pytest.raises(RunError, match=r"step-000000003\.json .*go back to step-000000002\.json"):
        checkpoint.latest(folder)


def test_what_a_killed_run_left_is_no_checkpoint_and_goes(folder):
    (folder / "step-000000009.safetensors").write_bytes(b"half")
    assert checkpoint.latest(folder).step == 3
    checkpoint.save(folder, 4, {}, {})
    assert not (folder / "step-000000009.safetensors").exists()


def test_none_at_all(tmp_path):
    with pytest.raises(RunError, match="holds no checkpoint"):
        checkpoint.latest(tmp_path)


def test_optimisers_come_back_to_the_bit():
    weight = torch.nn.Parameter(torch.ones(3))
    first = torch.optim.Adam([weight], lr=0.1)
    weight.grad = torch.tensor([1.0, 2.0, 3.0])
    first.step()
    second = torch.optim.Adam([weight], lr=0.1)
    checkpoint.unflatten(second, checkpoint.flatten(first))
    assert first.state_dict()["state"][0].keys() == second.state_dict()["state"][0].keys()
    for key, value in first.state_dict()["state"][0].items():
        assert torch.equal(second.state_dict()["state"][0][key], value)
