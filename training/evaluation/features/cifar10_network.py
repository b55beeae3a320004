"""The feature network that needs no download: a small classifier of CIFAR-10 with 256 pooled features.

    python -m training.evaluation.features.cifar10_network --data ../shared/data/cifar10-jpeg.zip

trains the network again (about five minutes on one core), writes `cifar10_network.safetensors` beside this file, and
prints the accuracy on the test set. The weights are in the package, so that figures can be compared.

No package that this project could depend on contains the weights of a general network: torchvision, timm, lpips and
torch-fidelity all fetch theirs. In training, some images are made grey or inverted, so that the features also
describe drawings and digits.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rae_serve.arrays import Pixels
from training.data.batches import Batches, to_tensor

Labels = npt.NDArray[np.int64]

WEIGHTS: Final = Path(__file__).with_suffix(".safetensors")
SIDE: Final = 32
_GREY, _INVERTED = 0.3, 0.2  # shares of the training images


class Cifar10Network(nn.Module):
    """Maps images [B, 3, 32, 32] in [0, 1] to `features` [B, 256], and these to logits [B, 10]."""

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
        """Return the network with the weights of the package, in evaluation mode."""
        network = cls()
        network.load_state_dict(load_file(WEIGHTS))
        return network.eval()


def read(archive: Path, split: str) -> tuple[Pixels, Labels]:
    """Read images, uint8 [N, 32, 32, 3], and labels, [N], from `cifar10/{split}/<class>/*.jpg` in a zip file."""
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.startswith(f"cifar10/{split}/"))
        images = np.stack([np.asarray(Image.open(io.BytesIO(files.read(name))).convert("RGB")) for name in names])
    _, labels = np.unique([name.split("/")[2] for name in names], return_inverse=True)
    return images, labels


def augment(x: Tensor) -> Tensor:
    """Mirror half of the images [B, 3, 32, 32], shift all by up to 3 pixels, make some grey and some inverted."""
    down, right = torch.randint(0, 7, (2,)).tolist()
    x = nn.functional.pad(x, (3, 3, 3, 3))[:, :, down : down + SIDE, right : right + SIDE]
    mirrored, grey, inverted = torch.rand(3, len(x), 1, 1, 1) < torch.tensor([0.5, _GREY, _INVERTED]).view(
        3, 1, 1, 1, 1
    )
    x = torch.where(mirrored, x.flip(3), x)
    x = torch.where(grey, x.mean(dim=1, keepdim=True), x)
    return torch.where(inverted, 1.0 - x, x)


def train(images: Pixels, labels: Labels, epochs: int) -> Cifar10Network:
    """Train a network by AdamW with a one-cycle learning rate.

    Args:
        images: uint8 [N, 32, 32, 3].
        labels: Class numbers, [N].
        epochs: How many times each image is used.
    """
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
def accuracy(network: Cifar10Network, images: Pixels, labels: Labels) -> float:
    """Return the share of images that are classified correctly."""
    cpu = torch.device("cpu")
    found = [network(to_tensor(images[i : i + 500], cpu)).argmax(dim=1) for i in range(0, len(images), 500)]
    return float((torch.cat(found).numpy() == labels).mean())


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", required=True, type=Path, help="a zip file of cifar10/SPLIT/CLASS/*.jpg")
    arguments.add_argument("--epochs", type=int, default=6, help="how many times each image is used (default: 6)")
    given = arguments.parse_args()
    trained = train(*read(given.data, "train"), given.epochs)
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, WEIGHTS)
    print(f"accuracy on the test set: {accuracy(trained, *read(given.data, 'test')):.4f}")
