"""Measure what each recipe key of FlexAE's further prior steps is worth, by the Fréchet distance of generated digits.

    rae-serve train flexae-mnist-small --data ../shared/data --steps 2345 --set prior_steps=0 --out runs/joint
    python -m benchmarks.prior_ablation runs/joint --data ../shared/data --updates 2000

Every variant starts from the same jointly trained model and differs from the recipe in one key. The distance is that
of 10,000 images of seed 0 to the test images, on the features of benchmarks/mnist_classifier. The first line is the
model before the further steps. The last line is for reconstructed training images, which no prior can surpass.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.mnist_classifier import Classifier, mnist
from rae_serve.arrays import Latents, Pixels
from training.data.batches import Batches
from training.evaluation.metrics.distances import frechet_distance
from training.inference import Inference
from training.models.flexae import FlexAE
from training.optimizers import descend
from training.recipe import check, flat
from training.runs import Run

CPU = torch.device("cpu")
COUNT = 10_000
VARIANTS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "without the average of weights": {"average": 0.0},
    "3 critic steps": {"prior_critic_steps": 3},
    "penalty 10": {"prior_penalty": 10.0},
    "critic as fast as generator": {"prior_critic_lr": 5e-4},
    "whitened, from the Gaussian of the latents": {"prior_whitened": True},
}


def refine(run: Run, latents: Latents, keys: dict[str, Any], updates: int) -> FlexAE:
    """Train the prior of a run further, and return the model.

    Args:
        run: A run that ended with its joint training.
        latents: The latents of the training images, float32 [N, m].
        keys: Recipe keys that replace those of the run.
        updates: The number of further steps.
    """
    torch.manual_seed(0)
    recipe = check(flat(run.recipe) | {"average": 0.999, "prior_steps": updates} | keys)
    height, width, channels = run.data.preprocessing.shape
    model, (trained, _) = recipe.build((channels, height, width)), run.load()
    assert isinstance(model, FlexAE)
    assert isinstance(trained, FlexAE)
    model.encoder.load_state_dict(trained.encoder.state_dict())
    model.decoder.load_state_dict(trained.decoder.state_dict())
    model.generator.critic.load_state_dict(trained.generator.critic.state_dict())
    # With another average or whitening, the same network has other names.
    with torch.no_grad():
        pairs = zip(model.generator.generator_parameters(), trained.generator.generator_parameters(), strict=True)
        for parameter, value in pairs:
            parameter.copy_(value)
    rows = torch.from_numpy(latents)
    model.prior.start(rows, rows[:1])
    optimizers = model.train().prior.optimizers()
    batches = Batches(latents, np.arange(len(latents)), recipe.prior_batch_size, 0, CPU)
    for step in range(updates):
        for name, terms in model.prior.updates(batches, step / updates):
            descend(optimizers[name], terms)
    return model


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path, help="a run that ended with its joint training")
    arguments.add_argument("--data", required=True, help="the folder that holds MNIST/raw")
    arguments.add_argument("--updates", type=int, default=2000, help="further steps of each variant")
    given = arguments.parse_args()
    classifier = Classifier.load()
    joint = Run.open(given.run)
    train_images, _ = mnist(given.data, train=True)
    reference, _ = classifier.classify(mnist(given.data, train=False)[0])

    def show(name: str, images: Pixels, seconds: float) -> None:
        features, probabilities = classifier.classify(images)
        distance, top = frechet_distance(features, reference), probabilities.max(1).mean()
        print(f"{name:40} FD {distance:6.2f}   top probability {top:.3f}   {seconds:4.0f} s", flush=True)

    trained = Inference(joint.load()[0], CPU)
    latents = trained.encode(train_images)
    show("joint training alone", trained.sample(COUNT), 0.0)
    for name, keys in VARIANTS.items():
        began = time.perf_counter()
        refined = refine(joint, latents, keys, given.updates)
        show(name, Inference(refined, CPU).sample(COUNT), time.perf_counter() - began)
    show("reconstructed training images", trained.reconstruct(train_images[:COUNT]), 0.0)
