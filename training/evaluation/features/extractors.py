"""Feature extractors, and features of images: computed once, in pieces, and kept in the cache by their digests."""

from __future__ import annotations

import hashlib
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
from rae_serve.images import encode_npy
from training.data import sources
from training.data.batches import to_tensor
from training.data.dataset import digest
from training.evaluation.features.cifar10_network import SIDE, WEIGHTS, Cifar10Network
from training.evaluation.metrics.distances import Features

ExtractorName = Literal["cifar10", "inception"]

CHUNK: Final = 1000  # images that are computed and kept together: the most that an interruption costs
_BATCH: Final = 100
_LARGEST: Final = 2 * SIDE
# torch-fidelity's conversion of the Inception of 2015-12-05; the name of its file ends in the start of its SHA-256.
_INCEPTION_SHA256: Final = "6726825d"
_INCEPTION_FILE: Final = f"weights-inception-2015-12-05-{_INCEPTION_SHA256}.pth"


class Extractor(Protocol):
    """Turns images, uint8 [N, H, W, C], into features, float32 [N, D].

    Attributes:
        label: The name of a Fréchet distance on these features.
        digest: The SHA-256 of the weights.
        description: The features in a few words, for people.
    """

    label: str
    digest: str
    description: str

    def __call__(self, images: Pixels) -> Features:
        """Return the features of the images."""
        ...


class Cifar10Extractor:
    """256 features of the small network that comes with the package.

    A grey image becomes three equal channels. The network takes images of 32 to 64 pixels a side as they are.
    Smaller images are enlarged and larger ones shrunk with antialiasing, so finer detail is lost.
    """

    label = "FD-cifar10"
    description = "256 pooled features of rae-serve's own CIFAR-10 classifier"

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        if weights:
            raise InvalidInput("--weights", "belongs to --network inception; cifar10 comes with its own weights")
        self.digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
        self._device = device
        self._network = Cifar10Network.load().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, images: Pixels) -> Features:
        x = _three_channels(to_tensor(images, self._device))
        size = tuple(min(max(side, SIDE), _LARGEST) for side in x.shape[2:])
        if size != x.shape[2:]:
            x = interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
        return self._network.features(x.contiguous(memory_format=torch.channels_last)).cpu().numpy()


class InceptionExtractor:
    """2,048 pool3 features of torch-fidelity's inception-v3-compat. A Fréchet distance on them is an FID.

    Args:
        device: Where the network runs.
        weights: The file of torch-fidelity's weights; fetched into torch's cache if not given.

    Raises:
        InvalidInput: The weights cannot be fetched, or the file is another than torch-fidelity's.
    """

    label = "FID"
    description = "2,048 pool3 features of inception-v3-compat (Inception of 2015-12-05), by torch-fidelity"

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = weights or _fetched_inception()
        self.digest = _inception_digest(path)  # checked before loading, since the file is a pickle
        self._device = device
        self._network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        ).to(device)

    @torch.no_grad()
    def __call__(self, images: Pixels) -> Features:
        x = torch.from_numpy(images).permute(0, 3, 1, 2).to(self._device)
        return self._network(_three_channels(x))[0].cpu().numpy()


# A new extractor needs an entry here, its name in ExtractorName, and in the --network option of `rae-serve evaluate`.
EXTRACTORS: Final[dict[ExtractorName, Callable[[torch.device, Path | None], Extractor]]] = {
    "cifar10": Cifar10Extractor,
    "inception": InceptionExtractor,
}


def load_extractor(name: ExtractorName, device: torch.device, weights: Path | None = None) -> Extractor:
    """Load the extractor of this name.

    Args:
        name: A key of EXTRACTORS.
        device: Where the network runs.
        weights: The file of the weights, for Inception only; fetched if not given.

    Raises:
        InvalidInput: The weights cannot be had, or do not belong to this extractor.
    """
    return EXTRACTORS[name](device, weights)


def extract(
    extractor: Extractor, images: Pixels, progress: Callable[[int, int], object] = lambda done, total: None
) -> Features:
    """Return the features of images, from the cache where they are there.

    Each piece of 1,000 images is kept in the cache by the digests of its pixels and of the weights. So an interrupted
    evaluation continues where it stopped, and later evaluations of the same images compute nothing.

    Args:
        extractor: What computes the features.
        images: uint8 [N, H, W, C].
        progress: Called after each piece with the number of images done and of all images.
    """
    parts = []
    for start in range(0, len(images), CHUNK):
        piece = np.ascontiguousarray(images[start : start + CHUNK])
        cached = sources.cache_folder() / "features" / extractor.digest[:16] / f"{digest(piece)[:32]}.npy"
        part = _read(cached, len(piece))
        if part is None:
            part = np.concatenate([extractor(piece[i : i + _BATCH]) for i in range(0, len(piece), _BATCH)])
            cached.parent.mkdir(parents=True, exist_ok=True)
            files.write(cached, encode_npy(part))
        parts.append(part)
        progress(start + len(piece), len(images))
    return np.concatenate(parts)


def _read(path: Path, rows: int) -> Features | None:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing or damaged: computed again
        return None
    return loaded if len(loaded) == rows else None


def _three_channels(x: Tensor) -> Tensor:
    return x.expand(-1, 3, -1, -1)


def _fetched_inception() -> Path:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / _INCEPTION_FILE
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=_INCEPTION_SHA256, progress=False)
        except (OSError, RuntimeError) as error:
            problem = f"the weights of inception are not at {path} and cannot be fetched ({error})"
            remedy = f"give {_INCEPTION_FILE} of torch-fidelity's release 0.2.0 by --weights"
            other = "or use --network cifar10, which needs no download"
            raise InvalidInput("--network", f"{problem}; {remedy}, {other}") from None
    return path


def _inception_digest(path: Path) -> str:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidInput("--weights", f"{path} cannot be read ({error.strerror})") from None
    if not found.startswith(_INCEPTION_SHA256):
        raise InvalidInput("--weights", f"{path} is not {_INCEPTION_FILE}: its SHA-256 starts with {found[:8]}")
    return found
