"""The feature network that is always here: a small classifier of CIFAR-10, whose 256 pooled features compare images.

    python -m training.evaluation.features.cifar10_network --data ../shared/data/cifar10-jpeg.zip

trains it anew (about five minutes on one core) into `cifar10_network.safetensors` beside this file, and
prints its accuracy on the test set. Those weights are in the package, so that figures compare.

No package that we would depend on carries a general network (torchvision, timm, lpips and torch-fidelity fetch
theirs), hence one of our own: photographs of ten kinds of things, some of them made grey or inverted in training,
so that it also sees something in drawings and digits.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rae_serve.arrays import Pixels
from training.data.batches import Batches, to_tensor

WEIGHTS: Final = Path(__file__).with_suffix(".safetensors")
SIDE: Final = 32
_GREY, _INVERTED = 0.3, 0.2  # shares of the training images


class Cifar10Network(nn.Module):
    """[B, 3, 32, 32] in [0, 1] → logits [B, 10]; `features` are what the last layer sees, [B, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 32, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(128, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    @classmethod
    def load(cls) -> Cifar10Network:
        """The network of the package, in evaluation mode."""
        network = cls()
        network.load_state_dict(load_file(WEIGHTS))
        return network.eval()


def read(archive: Path, split: str) -> tuple[Pixels, np.ndarray]:
    """Images, uint8 [N, 32, 32, 3], and labels [N], of `cifar10/{split}/<class>/*.jpg` in a zip."""
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.startswith(f"cifar10/{split}/"))
        images = np.stack([np.asarray(Image.open(io.BytesIO(files.read(name))).convert("RGB")) for name in names])
    _, labels = np.unique([name.split("/")[2] for name in names], return_inverse=True)
    return images, labels


def augment(x: Tensor) -> Tensor:
    """[B, 3, 32, 32], mirrored, shifted by up to 3 pixels, some of them grey, some inverted."""
    down, right = torch.randint(0, 7, (2,)).tolist()
    x = nn.functional.pad(x, (3, 3, 3, 3))[:, :, down : down + SIDE, right : right + SIDE]
    mirrored, grey, inverted = torch.rand(3, len(x), 1, 1, 1) < torch.tensor([0.5, _GREY, _INVERTED]).view(
        3, 1, 1, 1, 1
    )
    x = torch.where(mirrored, x.flip(3), x)
    x = torch.where(grey, x.mean(dim=1, keepdim=True), x)
    return torch.where(inverted, 1.0 - x, x)


def train(images: Pixels, labels: np.ndarray, epochs: int) -> Cifar10Network:
    """Adam with a one-cycle rate."""
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    targets = torch.from_numpy(labels)
    order = Batches(np.arange(len(images)), np.arange(len(images)), 128, 0, cpu)
    network = Cifar10Network().to(memory_format=torch.channels_last)
    steps = epochs * (len(images) // 128)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        rows = next(order)
        x = augment(to_tensor(images[rows.numpy()], cpu)).contiguous(memory_format=torch.channels_last)
        loss = nn.functional.cross_entropy(network(x), targets[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step:,} of {steps:,}: {loss.item():.3f}", flush=True)
    return network.eval()


@torch.no_grad()
def accuracy(network: Cifar10Network, images: Pixels, labels: np.ndarray) -> float:
    """The share of images whose class it names."""
    cpu = torch.device("cpu")
    found = [network(to_tensor(images[i : i + 500], cpu)).argmax(dim=1) for i in range(0, len(images), 500)]
    return float((torch.cat(found).numpy() == labels).mean())


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True, type=Path, help="the zip of JPEG files")
    arguments.add_argument("--epochs", type=int, default=6)
    given = arguments.parse_args()
    trained = train(*read(given.data, "train"), given.epochs)
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, WEIGHTS)
    print(f"accuracy on the test set: {accuracy(trained, *read(given.data, 'test')):.4f}")
