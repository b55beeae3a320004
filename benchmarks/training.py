"""Measure the training speed of an auto-encoder: our trainer against a bare loop and against pythae's trainer.

    pip install --no-deps pythae==0.1.2 imageio tqdm cloudpickle
    python -m benchmarks.training --data ../shared/data [--device cuda] [--set compile=true]

All three train the networks of `flexae-mnist-small` by Adam on MNIST with the same batch size, and the result is in
images per second. They take turns, so that other work on the machine slows all of them, and each has a process of
its own, as it has for its users. The trainers include their batches and logging. The bare loop has all images in one
float tensor on the device and does nothing else. Our trainer also chooses the memory layout and keeps freed memory,
as it always does, and alone has the keys that are set.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.mnist_classifier import mnist
from rae_serve.preprocessing import Preprocessing
from training import recipe as recipes
from training.data.batches import to_tensor
from training.data.dataset import Dataset
from training.losses import sum_squared_error
from training.models.flexae import FlexAE
from training.optimizers import Update
from training.trainer import Interrupted, Trainer

BATCH = 128
RECIPE = "flexae-mnist-small"


class ReconstructionOnly(FlexAE):
    """FlexAE with the autoencoder update alone."""

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        yield self._reconstruct(next(batches))


class Task(NamedTuple):
    """What a contender does in a turn.

    Attributes:
        dataset: The images.
        steps: Steps to measure, after a warm-up.
        device: Where to train.
        keys: Changes of our recipe, each `key=value`.
    """

    dataset: Dataset
    steps: int
    device: torch.device
    keys: list[str]


def ours(task: Task) -> float:
    """Return the seconds that the steps take in Trainer.fit."""
    keys = ["decay=0.0", "average=0.0", "prior_steps=0", "log_every=10", *task.keys]
    recipe = recipes.load(RECIPE, keys)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, task.dataset, Path(folder), task.device)
        trainer.model.__class__ = ReconstructionOnly

        def report(_: object) -> None:
            times.append(time.perf_counter())
            if len(times) == task.steps + WARM_UP:
                trainer.stop()

        try:
            trainer.fit(report)
        except Interrupted:
            return times[task.steps + WARM_UP - 1] - times[WARM_UP - 1]
    raise AssertionError("the recipe has fewer steps than the benchmark")


def bare(task: Task) -> float:
    """Return the seconds that the steps take in the shortest equivalent loop."""
    model = fresh_model().train().to(task.device)
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    x_all = to_tensor(task.dataset.images, task.device)
    began = 0.0
    for step in range(task.steps + WARM_UP):
        if step == WARM_UP:
            began = clock(task.device)
        x = x_all[torch.randint(0, len(x_all), (BATCH,), device=task.device)]
        optimizer.zero_grad()
        sum_squared_error(model.decoder(model.encoder(x)), x).backward()
        optimizer.step()
    return clock(task.device) - began


def pythae(task: Task) -> float:
    """Return the seconds that the steps take in pythae's BaseTrainer, on our networks."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import AE, AEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    from benchmarks.pythae_networks import Decoder, Encoder

    networks = fresh_model()
    model = AE(
        AEConfig(input_dim=(1, 28, 28), latent_dim=16),
        encoder=Encoder(networks.encoder),
        decoder=Decoder(networks.decoder),
    )

    def epoch_of(count: int) -> float:
        images = to_tensor(task.dataset.images[: count * BATCH], torch.device("cpu"))
        with tempfile.TemporaryDirectory() as folder:
            config = BaseTrainerConfig(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                num_epochs=1,
                learning_rate=1e-3,
                no_cuda=task.device.type == "cpu",
            )
            trainer = BaseTrainer(model, BaseDataset(images, torch.ones(len(images))), training_config=config)
            trainer.prepare_training()
            began = clock(task.device)
            trainer.train_step(1)
            return clock(task.device) - began

    epoch_of(WARM_UP)
    return epoch_of(task.steps)


def clock(device: torch.device) -> float:
    """Return the time in seconds, when the device has finished what it was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def fresh_model() -> FlexAE:
    """Return the model of flexae-mnist-small with fresh weights."""
    torch.manual_seed(0)
    model = recipes.load(RECIPE).build((1, 28, 28))
    assert isinstance(model, FlexAE)
    return model


def turn(name: str, folder: str, steps: int, device: str, keys: list[str]) -> float:
    """Return the images per second of a contender.

    Args:
        name: A key of CONTENDERS.
        folder: The folder that holds MNIST/raw.
        steps: The number of steps to measure.
        device: Where to train.
        keys: Changes of our recipe, each `key=value`.
    """
    images, _ = mnist(folder, train=True)
    everything = np.arange(len(images))
    shape = Preprocessing(height=28, width=28, mode="L")
    dataset = Dataset("mnist", images, everything, everything[:0], shape)
    return steps * BATCH / CONTENDERS[name](Task(dataset, steps, torch.device(device), keys))


WARM_UP = 10
CONTENDERS = {"ours": ours, "bare": bare, "pythae": pythae}

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True, help="the folder that holds MNIST/raw")
    arguments.add_argument("--steps", type=int, default=60, help="steps of each turn")
    arguments.add_argument("--turns", type=int, default=6, help="turns of each contender; the median counts")
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where all train")
    arguments.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of our recipe; repeatable"
    )
    given = arguments.parse_args()
    spawn = multiprocessing.get_context("spawn")
    workers = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in CONTENDERS}
    workers["ours"].submit(int).result()  # starts the process with the GOMP_SPINCOUNT of training/__init__.py
    os.environ.pop("GOMP_SPINCOUNT", None)  # the others' users do not have it
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(given.turns):
        for name, worker in workers.items():
            rate = worker.submit(turn, name, given.data, given.steps, given.device, given.set).result()
            rates[name].append(rate)
    for worker in workers.values():
        worker.shutdown()
    for name, measured in rates.items():
        ratios = [ours_rate / other for ours_rate, other in zip(rates["ours"], measured, strict=True)]
        print(
            f"{name:8} {np.median(measured):8.0f} images/s   ours / {name}: {np.median(ratios):.3f} (median of turns)"
        )
