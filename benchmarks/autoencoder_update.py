"""Measure the training speed of an auto-encoder: our trainer against a bare loop and against pythae's trainer.

    pip install --no-deps pythae==0.1.2 imageio tqdm cloudpickle
    python -m benchmarks.autoencoder_update --data ../shared/data

All three train the networks of `flexae-mnist-small` by Adam on MNIST with the same batch size, and the result is in
images per second. They take turns, so that other work on the machine slows all of them, and each has a process of
its own, as it has for its users. The trainers include their batches and logging. The bare loop has all images in one
float tensor and does nothing else. Our trainer also chooses the memory layout and keeps freed memory, as it always
does.
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
CPU = torch.device("cpu")


class ReconstructionOnly(FlexAE):
    """FlexAE with the autoencoder update alone."""

    def updates(self, batches: Iterator[Tensor], progress: float) -> Iterator[Update]:
        yield self._reconstruct(next(batches))


def ours(dataset: Dataset, steps: int) -> float:
    """Return the seconds that some steps of Trainer.fit take, after a warm-up."""
    recipe = recipes.load("flexae-mnist-small", ["decay=0.0", "average=0.0", "prior_steps=0", "log_every=10"])
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, dataset, Path(folder), CPU)
        trainer.model.__class__ = ReconstructionOnly

        def report(_: object) -> None:
            times.append(time.perf_counter())
            if len(times) == steps + WARM_UP:
                trainer.stop()

        try:
            trainer.fit(report)
        except Interrupted:
            return times[-1] - times[WARM_UP - 1]
    raise AssertionError("the recipe has fewer steps than the benchmark")


def bare(dataset: Dataset, steps: int) -> float:
    """Return the seconds that some steps of the shortest equivalent loop take, after a warm-up."""
    model = fresh_model().train()
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    x_all = to_tensor(dataset.images, CPU)
    began = 0.0
    for step in range(steps + WARM_UP):
        if step == WARM_UP:
            began = time.perf_counter()
        x = x_all[torch.randint(0, len(x_all), (BATCH,))]
        optimizer.zero_grad()
        sum_squared_error(model.decoder(model.encoder(x)), x).backward()
        optimizer.step()
    return time.perf_counter() - began


def pythae(dataset: Dataset, steps: int) -> float:
    """Return the seconds that some steps of pythae's BaseTrainer take after a warm-up, on our networks."""
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
        images = to_tensor(dataset.images[: count * BATCH], CPU)
        with tempfile.TemporaryDirectory() as folder:
            config = BaseTrainerConfig(
                output_dir=folder, per_device_train_batch_size=BATCH, num_epochs=1, learning_rate=1e-3, no_cuda=True
            )
            trainer = BaseTrainer(model, BaseDataset(images, torch.ones(len(images))), training_config=config)
            trainer.prepare_training()
            began = time.perf_counter()
            trainer.train_step(1)
            return time.perf_counter() - began

    epoch_of(WARM_UP)
    return epoch_of(steps)


def fresh_model() -> FlexAE:
    """Return the model of flexae-mnist-small with fresh weights."""
    torch.manual_seed(0)
    model = recipes.load("flexae-mnist-small").build((1, 28, 28))
    assert isinstance(model, FlexAE)
    return model


def turn(name: str, folder: str, steps: int) -> float:
    """Return the images per second of a contender.

    Args:
        name: A key of CONTENDERS.
        folder: The folder that holds MNIST/raw.
        steps: The number of steps to measure.
    """
    images, _ = mnist(folder, train=True)
    everything = np.arange(len(images))
    shape = Preprocessing(height=28, width=28, mode="L")
    dataset = Dataset("mnist", images, everything, everything[:0], shape)
    return steps * BATCH / CONTENDERS[name](dataset, steps)


WARM_UP = 5
CONTENDERS = {"ours": ours, "bare": bare, "pythae": pythae}

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True, help="the folder that holds MNIST/raw")
    arguments.add_argument("--steps", type=int, default=60, help="steps of each turn")
    arguments.add_argument("--turns", type=int, default=6, help="turns of each contender; the median counts")
    given = arguments.parse_args()
    spawn = multiprocessing.get_context("spawn")
    workers = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in CONTENDERS}
    workers["ours"].submit(int).result()  # starts the process with the GOMP_SPINCOUNT of training/__init__.py
    os.environ.pop("GOMP_SPINCOUNT", None)  # the others' users do not have it
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(given.turns):
        for name, worker in workers.items():
            rates[name].append(worker.submit(turn, name, given.data, given.steps).result())
    for worker in workers.values():
        worker.shutdown()
    for name, measured in rates.items():
        ratios = [ours_rate / other for ours_rate, other in zip(rates["ours"], measured, strict=True)]
        print(
            f"{name:8} {np.median(measured):8.0f} images/s   ours / {name}: {np.median(ratios):.3f} (median of turns)"
        )
