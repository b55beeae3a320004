"""Measure how fast a training is on shared cores, for three settings of how long OpenMP's idle threads stay awake.

    python -m benchmarks.shared_cores --data ../shared/data

It prints the milliseconds of a step of `maskaae-mnist-small` for one training alone, for two trainings at once, and
for one training beside other work. Each training is a process with one thread for every core. The other work is one
process for every core, each busy with one thread. The settings are the GOMP_SPINCOUNT of training/__init__.py,
libgomp's default, and threads that sleep at once.
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
# "ours" is what training/__init__.py set in the environment of this process, which the trainings inherit.
CONTENDERS = {
    "ours": {},
    "libgomp's own": {"GOMP_SPINCOUNT": "300000"},
    "asleep at once": {"GOMP_SPINCOUNT": "0"},
}


def training(data: str, seconds: float, ready: Barrier, answers: Queue[float]) -> None:
    """Train for some seconds, from the moment when all trainings are ready, and report the milliseconds of a step.

    Args:
        data: The folder that holds MNIST/raw.
        seconds: How long to measure.
        ready: Where the trainings wait for each other after their first steps.
        answers: The queue for the result.
    """
    # The mask moves from the first step, as it does in most of a whole training.
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
    """Keep one core busy until the process is killed."""
    while True:
        pass


def turn(environment: dict[str, str], data: str, seconds: float, trainings: int, others: int) -> float:
    """Run trainings at once, and return the mean of the milliseconds of a step.

    Args:
        environment: Environment variables of the trainings.
        data: The folder that holds MNIST/raw.
        seconds: How long to measure.
        trainings: The number of trainings.
        others: The number of busy processes beside them.
    """
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
    arguments.add_argument("--seconds", type=float, default=10.0, help="the time of each measurement")
    arguments.add_argument("--turns", type=int, default=3, help="measurements of each setting; the median counts")
    given = arguments.parse_args()
    situations = {"alone": (1, 0), "two at once": (2, 0), "beside other work": (1, multiprocessing.cpu_count())}
    for situation, (trainings, others) in situations.items():
        measured: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(given.turns):
            for name, environment in CONTENDERS.items():
                measured[name].append(turn(environment, given.data, given.seconds, trainings, others))
        for name, milliseconds in measured.items():
            median, ratio = np.median(milliseconds), np.median(milliseconds) / np.median(measured["ours"])
            print(f"{situation:18} {name:15} {median:8.1f} ms a step   ratio to ours: {ratio:.2f}", flush=True)
