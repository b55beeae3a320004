"""Measure how much the best linear codes of m dimensions, principal components, lose on a folder of images.

    python -m benchmarks.linear_codes path/to/images --side 64

It helps to choose `latent_dim` for a folder. A third of the images is held out. Each line gives two Fréchet
distances to the held-out images, on the features of our CIFAR-10 network: of the held-out images reconstructed from
their first m principal components, and of images drawn from a mixture of 10 Gaussians, fitted on the codes of the
other images.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from rae_serve.arrays import Pixels
from training.data import dataset as data
from training.evaluation.features.extractors import extract, load_extractor
from training.evaluation.metrics.distances import frechet_distance

DIMENSIONS = (16, 32, 64, 128)
HELD_OUT = 1 / 3

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", help="the folder of images")
    arguments.add_argument(
        "--side", type=int, default=64, help="height and width in pixels that images are resized to"
    )
    given = arguments.parse_args()
    dataset = data.load(given.folder, "folder", shape={"height": given.side, "width": given.side})
    order = np.random.default_rng(0).permutation(dataset.train)
    held, known = np.split(order, [int(len(order) * HELD_OUT)])
    held_out, train = dataset.images[held], dataset.images[known]
    extractor = load_extractor("cifar10", torch.device("cpu"))
    reference = extract(extractor, held_out)

    def distance(points: npt.NDArray[np.float64]) -> float:
        """Return the Fréchet distance of images, given as rows of pixels in [0, 1], to the held-out images."""
        pixels = (points.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)
        return frechet_distance(extract(extractor, pixels.reshape(-1, *held_out.shape[1:])), reference)

    def rows(images: Pixels) -> npt.NDArray[np.float64]:
        """Flatten images to rows of pixels in [0, 1]."""
        return images.reshape(len(images), -1) / 255.0

    unchanged = distance(rows(train[: len(held)]))
    print(f"{len(train):,} images, against {len(held_out):,} held out: unchanged {unchanged:.3f}")
    components = PCA(max(DIMENSIONS), svd_solver="randomized", random_state=0).fit(rows(train))
    codes, held_codes = components.transform(rows(train)), components.transform(rows(held_out))
    for m in DIMENSIONS:
        mixture = GaussianMixture(10, reg_covar=1e-4, random_state=0).fit(codes[:, :m])
        basis = components.components_[:m]
        reconstructed = held_codes[:, :m] @ basis + components.mean_
        drawn = mixture.sample(len(held_out))[0] @ basis + components.mean_
        print(f"m = {m}: reconstructed {distance(reconstructed):.2f}, drawn {distance(drawn):.2f}", flush=True)
