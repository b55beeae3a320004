"""Where images come from: data sets by name, folders, and arrays in files."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput

Split = Literal["train", "test"]

# name → torchvision's class, and the folder that it keeps under a root
TORCHVISION: Final = {
    "mnist": ("MNIST", "MNIST"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "celeba": ("CelebA", "celeba"),
}
SYNTHETIC: Final = {"synthetic-8": 8, "synthetic-16": 16}  # name → true dimension
NAMES: Final = ("digits", *SYNTHETIC, *TORCHVISION)
DIGITS_TRAIN: Final = 1500  # of scikit-learn's 1,797, which come without a split


def read(source: str, known_as: str, split: Split) -> tuple[str, Pixels | list[Path]]:
    """The name of `source` and its images: an array, uint8 [N, H, W, C], or the files that hold them.

    `source` is a name of NAMES, a folder that holds such a data set as torchvision lays it out (`known_as` where
    it holds several), any folder of images, or a .npy or .npz file. Raises InvalidInput, naming `data`,
    for anything else, and for the test split of a source that has none.
    """
    path = Path(source)
    if split == "test" and not has_test_split(source, known_as):
        raise InvalidInput("data", f"{source} has no test split")
    if source == "digits":
        return source, _digits(split)
    if source in SYNTHETIC:
        return source, _synthetic(SYNTHETIC[source], split)
    if source in TORCHVISION:
        return source, _torchvision(source, cache_folder() / "data", split, download=True)
    if path.is_dir():
        if held := held_in(path, known_as):
            return held, _torchvision(held, path, split, download=False)
        return path.resolve().name, _files(path)
    if path.suffix in (".npy", ".npz") and path.is_file():
        return path.stem, _array(path)
    raise InvalidInput(
        "data", f"{source!r} is neither a data set ({', '.join(NAMES)}), nor a folder, nor a .npy or .npz file"
    )


def has_test_split(source: str, known_as: str) -> bool:
    """Whether a source of `read` comes with test images apart: data sets do, folders of images and arrays do not."""
    return source in NAMES or held_in(Path(source), known_as) is not None


def held_in(folder: Path, known_as: str) -> str | None:
    """The data set that a folder holds as torchvision lays it out, `known_as` before any other."""
    held = [name for name, (_, inside) in TORCHVISION.items() if (folder / inside).is_dir()]
    return known_as if known_as in held else next(iter(held), None)


def cache_folder() -> Path:
    """Where downloads and decoded images are kept: RAE_SERVE_CACHE, or ~/.cache/rae-serve."""
    return Path(os.environ.get("RAE_SERVE_CACHE") or Path.home() / ".cache" / "rae-serve")


def _digits(split: Split) -> Pixels:
    from sklearn.datasets import load_digits

    greys = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]
    return greys[:DIGITS_TRAIN] if split == "train" else greys[DIGITS_TRAIN:]


def _synthetic(dim: int, split: Split) -> Pixels:
    """Points of a known true dimension, as pictures of 8 × 16: the talk's Synthetic-8 and -16 (Fig. 2, 5).

    N(0, I) of `dim` dimensions through a fixed random MLP of three layers, squashed to grey levels. The sources
    leave its size open: ours is 64 and 64 wide with tanh, and each pixel's logit has a deviation of 1.5.
    """
    rng = np.random.default_rng([dim, 0])
    weights = [rng.normal(0.0, size[0] ** -0.5, size) for size in ((dim, 64), (64, 64), (64, 128))]
    points = np.random.default_rng([dim, 1 if split == "train" else 2]).normal(
        size=(60_000 if split == "train" else 10_000, dim)
    )
    hidden = np.tanh(1.5 * np.tanh(1.5 * points @ weights[0]) @ weights[1])
    logits = hidden @ weights[2]
    logits *= 1.5 / logits.std(axis=0)
    return np.rint(255.0 / (1.0 + np.exp(-logits))).astype(np.uint8).reshape(-1, 8, 16, 1)


def _torchvision(name: str, root: Path, split: Split, download: bool) -> Pixels | list[Path]:
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION[name][0])
    which: dict[str, Any] = {"split": split} if name == "celeba" else {"train": split == "train"}
    try:
        data = kind(root, download=download, **which)
    except Exception as error:  # of many kinds: torchvision's checks, the network's, gdown's
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput(
            "data", f"{name} cannot be had from {root} ({reason}); give --data the folder that holds it"
        ) from None
    if name == "celeba":
        return [root / "celeba" / "img_align_celeba" / file for file in data.filename]
    return _channels_last(np.asarray(data.data), f"{name} at {root}")


def _files(folder: Path) -> list[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise InvalidInput("data", f"{folder} is empty: it holds no image")
    return files


def _array(path: Path) -> Pixels:
    try:
        if path.suffix == ".npy":
            return _channels_last(np.lib.format.open_memmap(path, mode="r"), str(path))
        with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            names = loaded.files
            if "images" not in names and len(names) != 1:
                raise InvalidInput("data", f"{path} must hold an array named images; it holds {', '.join(names)}")
            return _channels_last(loaded["images" if "images" in names else names[0]], str(path))
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidInput("data", f"{path} is no readable array file ({error})") from None


def _channels_last(array: npt.NDArray[Any], where: str) -> Pixels:
    shaped = array[..., None] if array.ndim == 3 else array
    if shaped.dtype != np.uint8 or shaped.ndim != 4 or shaped.shape[-1] not in (1, 3) or not len(shaped):
        raise InvalidInput(
            "data", f"{where} must be uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3], not {array.dtype} "
            f"{list(array.shape)}"
        )  # fmt: skip
    return shaped
