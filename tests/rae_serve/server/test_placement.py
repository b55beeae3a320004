"""The placement of workers, on machines that this one is not."""

from __future__ import annotations

import pytest

from rae_serve import sessions
from rae_serve.server.placement import Place, place, worker_count
from rae_serve.server.settings import Settings

GiB = 1024**3


def on_machine(monkeypatch, cores: int, gpus: list[int]) -> None:
    monkeypatch.setattr(sessions, "available_cores", lambda: cores)
    monkeypatch.setattr(sessions, "cuda_memories", lambda: [size * GiB for size in gpus])
    monkeypatch.setattr(sessions, "_has_cuda_provider", lambda: True)


@pytest.mark.parametrize(
    ("cores", "gpus", "workers"),
    [
        (1, [], 1),
        (2, [], 2),
        (16, [], 8),  # more than 8 on a CPU: never
        (1, [80], 1),
        (16, [80], 8),
        (64, [80], 8),  # more than 8 on a GPU: never
        (16, [80, 80], 8),
        (16, [10], 2),  # as many as its memory holds
        (16, [2], 1),
        (16, [80, 10], 4),  # all GPUs have the workers of the smallest
    ],
)
def test_auto_starts_as_many_workers_as_cores_and_memory_allow(monkeypatch, cores, gpus, workers):
    on_machine(monkeypatch, cores, gpus)
    assert worker_count(Settings()) == workers
    assert worker_count(Settings(device="cpu")) == min(8, cores)
    assert worker_count(Settings(workers=3)) == 3


def test_workers_share_the_machine_and_the_limits(monkeypatch):
    on_machine(monkeypatch, 16, [80, 80])
    places = [place(Settings(workers=3, max_waiting=100), worker) for worker in range(3)]
    assert places == [Place(0, 16, 3, 33), Place(1, 16, 3, 33), Place(0, 16, 3, 33)]
    assert place(Settings(workers=3, threads=7, max_waiting=2), 0) == Place(0, 7, 1, 1)


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("10000 100000", 1), ("", 8)])
def test_cores_are_those_of_the_container(monkeypatch, tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(sessions, "_CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(sessions.os, "sched_getaffinity", lambda pid: range(8), raising=False)
    assert sessions.available_cores() == cores
