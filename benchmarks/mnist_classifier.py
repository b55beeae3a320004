"""Train the MNIST classifier whose 128 penultimate features give the Fréchet distances of the other benchmarks.

    python -m benchmarks.mnist_classifier --data ../shared/data

The command takes a few minutes on a CPU, overwrites `mnist_classifier.safetensors` beside this file, and prints the
accuracy on the test set. The repository contains the weights, because distances compare only on the same weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import datasets

from rae_serve.arrays import Pixels
from training.data.batches import Batches, to_tensor

WEIGHTS = Path(__file__).with_suffix(".safetensors")
CPU = torch.device("cpu")
Floats = npt.NDArray[np.float32]


class Classifier(nn.Module):
    """A small convolutional classifier, [B, 1, 28, 28] → logits [B, 10], with 128 features before its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU()),
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    @classmethod
    def load(cls) -> Classifier:
        """Return the classifier with the weights in the repository, in evaluation mode."""
        classifier = cls()
        classifier.load_state_dict(load_file(WEIGHTS))
        return classifier.eval()

    @torch.no_grad()
    def classify(self, images: Pixels) -> tuple[Floats, Floats]:
        """Return the features [N, 128] and the class probabilities [N, 10] of uint8 images [N, 28, 28, 1]."""
        parts = [self.features(to_tensor(images[i : i + 1000], CPU)) for i in range(0, len(images), 1000)]
        features = torch.cat(parts)
        return features.numpy(), self.head(features).softmax(dim=1).numpy()


def mnist(root: str, *, train: bool) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Return the images, uint8 [N, 28, 28, 1], and the labels [N] of MNIST's training or test split."""
    data = datasets.MNIST(root, train=train, download=False)
    return data.data.numpy()[..., None], data.targets.numpy()


def train(root: str, epochs: int) -> Classifier:
    """Train a classifier by Adam with a one-cycle learning rate."""
    torch.manual_seed(0)
    images, labels = mnist(root, train=True)
    targets = torch.from_numpy(labels)
    order = Batches(np.arange(len(images)), np.arange(len(images)), 128, 0, CPU)
    classifier = Classifier()
    steps = epochs * (len(images) // 128)
    optimizer = torch.optim.Adam(classifier.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        rows = next(order)
        loss = nn.functional.cross_entropy(classifier(to_tensor(images[rows.numpy()], CPU)), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True, help="the folder that holds MNIST/raw")
    arguments.add_argument("--epochs", type=int, default=4, help="passes over the training images")
    given = arguments.parse_args()
    trained = train(given.data, given.epochs)
    save_file(trained.state_dict(), WEIGHTS)
    images, labels = mnist(given.data, train=False)
    print(f"accuracy on the test set: {(trained.classify(images)[1].argmax(1) == labels).mean():.4f}")
