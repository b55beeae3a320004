"""Milliseconds a step of a training alone, of two at once, and beside other work, by how OpenMP's threads wait.

    python -m benchmarks.shared_cores --data ../shared/data

`maskaae-mnist-small` from its mask's first movement, each training in a process of its own with a thread for every
core; the other work is as many processes as there are cores, each busy with one thread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Queue
from unittest import mock

import numpy as np
import torch

from training import recipe as recipes
from training.runs import load_data
from training.trainer import Interrupted, Trainer

WARM_UP = 5
# What training/__init__.py sets is in this process's environment, which the trainings inherit.
CONTENDERS = {
    "ours": {},
    "libgomp's own": {"GOMP_SPINCOUNT": "300000"},
    "asleep at once": {"GOMP_SPINCOUNT": "0"},
}


def training(data: str, seconds: float, ready: Barrier, answers: Queue[float]) -> None:
    """Put milliseconds a step, over so many seconds from when all are ready."""
    recipe = recipes.load("maskaae-mnist-small", ["warmup=0.0", "minutes=60"])
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, load_data(recipe, data), Path(folder), torch.device("cpu"))

        def report(_: object) -> None:
            times.append(time.perf_counter())
            if len(times) == WARM_UP:
                ready.wait()
                times[-1] = time.perf_counter()
            if len(times) > WARM_UP and times[-1] - times[WARM_UP - 1] > seconds:
                trainer.stop()

        try:
            trainer.fit(report)
        except Interrupted:
            answers.put(1000.0 * (times[-1] - times[WARM_UP - 1]) / (len(times) - WARM_UP))


def work() -> None:
    """Keep a core busy."""
    while True:
        pass


def turn(environment: dict[str, str], data: str, seconds: float, trainings: int, others: int) -> float:
    """Milliseconds a step, the mean of so many trainings at once beside so many other processes."""
    spawn = multiprocessing.get_context("spawn")
    ready, answers = spawn.Barrier(trainings), spawn.Queue()
    processes = [spawn.Process(target=training, args=(data, seconds, ready, answers)) for _ in range(trainings)]
    busy = [spawn.Process(target=work, daemon=True) for _ in range(others)]
    with mock.patch.dict(os.environ, environment):
        for process in processes + busy:
            process.start()
    measured = [answers.get() for _ in processes]
    for process in busy:
        process.kill()
    for process in processes + busy:
        process.join()
    return float(np.mean(measured))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True, help="the folder that holds MNIST/raw")
    arguments.add_argument("--seconds", type=float, default=10.0, help="a turn")
    arguments.add_argument("--turns", type=int, default=3)
    given = arguments.parse_args()
    situations = {"alone": (1, 0), "two at once": (2, 0), "beside other work": (1, multiprocessing.cpu_count())}
    for situation, (trainings, others) in situations.items():
        measured: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(given.turns):
            for name, environment in CONTENDERS.items():
                measured[name].append(turn(environment, given.data, given.seconds, trainings, others))
        for name, milliseconds in measured.items():
            median, ratio = np.median(milliseconds), np.median(milliseconds) / np.median(measured["ours"])
            print(f"{situation:18} {name:15} {median:8.1f} ms a step   it / ours: {ratio:.2f}", flush=True)
