"""Feature networks, and features of images: computed once, in pieces, and kept in the cache by their digests."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rae_serve import files
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from training.data import sources
from training.data.batches import to_tensor
from training.evaluation.features.cifar10_network import SIDE, WEIGHTS, Cifar10Network
from training.evaluation.metrics.distances import Features

Name = Literal["cifar10", "inception"]

CHUNK: Final = 1000  # images that are computed and kept together: what an interruption may cost
_BATCH: Final = 100
_LARGEST: Final = 2 * SIDE
# torch-fidelity's conversion of the Inception of 2015-12-05; the name of its file ends in the start of its SHA-256.
_INCEPTION_SHA256: Final = "6726825d"
_INCEPTION_FILE: Final = f"weights-inception-2015-12-05-{_INCEPTION_SHA256}.pth"


class Network(Protocol):
    """Images in, features out. `label` is what a Fréchet distance on it is called, `digest` is of its weights."""

    label: str
    digest: str
    description: str

    def __call__(self, images: Pixels) -> Features:
        """float32 [N, D] of uint8 [N, H, W, C]."""
        ...


class Cifar10Features:
    """256 features of the small network that comes with the package.

    Grey becomes three equal channels. The network has no fixed size: pictures of 32 to 64 pixels a side are
    seen as they are, smaller ones enlarged and larger ones shrunk (antialiased), so finer detail goes unseen.
    """

    label = "FD-cifar10"
    description = "256 pooled features of rae-serve's own CIFAR-10 classifier"

    def __init__(self, device: torch.device) -> None:
        self.digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
        self._device = device
        self._network = Cifar10Network.load().to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, images: Pixels) -> Features:
        x = _coloured(to_tensor(images, self._device))
        size = tuple(min(max(side, SIDE), _LARGEST) for side in x.shape[2:])
        if size != x.shape[2:]:
            x = interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
        return self._network.features(x.contiguous(memory_format=torch.channels_last)).cpu().numpy()


class InceptionFeatures:
    """2,048 pool3 features of torch-fidelity's inception-v3-compat: with them a Fréchet distance is an FID.

    The weights are those of `weights`, or are fetched into torch's cache at the first use. Raises InvalidInput
    where neither can be had, or the file is another than torch-fidelity's.
    """

    label = "FID"
    description = "2,048 pool3 features of inception-v3-compat (Inception of 2015-12-05), by torch-fidelity"

    def __init__(self, device: torch.device, weights: Path | None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = weights or _fetched_inception()
        self.digest = _inception_digest(path)  # before it is loaded: it is a pickle
        self._device = device
        self._network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        ).to(device)

    @torch.no_grad()
    def __call__(self, images: Pixels) -> Features:
        x = torch.from_numpy(images).permute(0, 3, 1, 2).to(self._device)
        (features,) = self._network(_coloured(x))
        return features.cpu().numpy()


def network(name: Name, device: torch.device, weights: Path | None = None) -> Network:
    """The feature network of that name; `weights` is Inception's file."""
    if name == "inception":
        return InceptionFeatures(device, weights)
    if weights:
        raise InvalidInput("--weights", f"are of --network inception; {name} comes with its own")
    return Cifar10Features(device)


def features(look: Network, images: Pixels, progress: Callable[[int], None] = lambda _: None) -> Features:
    """Features [N, D] of images [N, H, W, C]; `progress` hears how many more images are done.

    Each piece of 1,000 images is kept in the cache by its digest and the network's, so what was interrupted
    goes on where it stopped and what was computed for one evaluation serves every other.
    """
    parts = []
    for start in range(0, len(images), CHUNK):
        piece = np.ascontiguousarray(images[start : start + CHUNK])
        cached = sources.cache_folder() / "features" / look.digest[:16] / f"{digest(piece)[:32]}.npy"
        part = _read(cached, len(piece))
        if part is None:
            part = np.concatenate([look(piece[i : i + _BATCH]) for i in range(0, len(piece), _BATCH)])
            buffer = io.BytesIO()
            np.save(buffer, part, allow_pickle=False)
            cached.parent.mkdir(parents=True, exist_ok=True)
            files.write(cached, buffer.getvalue())
        parts.append(part)
        progress(len(piece))
    return np.concatenate(parts)


def digest(images: Pixels) -> str:
    """SHA-256 over the shape and pixels of images, as of a Dataset."""
    sha256 = hashlib.sha256(repr(tuple(images.shape)).encode())
    for start in range(0, len(images), CHUNK):
        sha256.update(np.ascontiguousarray(images[start : start + CHUNK]).tobytes())
    return sha256.hexdigest()


def _read(path: Path, rows: int) -> Features | None:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # none, or damaged: computed anew
        return None
    return loaded if len(loaded) == rows else None


def _coloured(x: Tensor) -> Tensor:
    """[B, 3, H, W] of [B, 1 or 3, H, W]."""
    return x.expand(-1, 3, -1, -1)


def _fetched_inception() -> Path:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / _INCEPTION_FILE
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=_INCEPTION_SHA256, progress=False)
        except (OSError, RuntimeError) as error:
            raise InvalidInput(
                "--network",
                f"the weights of inception are not at {path} and cannot be fetched ({error}); give {_INCEPTION_FILE} "
                "of torch-fidelity's release 0.2.0 by --weights, or use --network cifar10, which needs none",
            ) from None
    return path


def _inception_digest(path: Path) -> str:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidInput("--weights", f"{path} cannot be read ({error.strerror})") from None
    if not found.startswith(_INCEPTION_SHA256):
        raise InvalidInput("--weights", f"{path} is not {_INCEPTION_FILE}: its SHA-256 is {found[:8]}…")
    return found
