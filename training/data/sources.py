"""Read images from their sources: data sets by name, folders of pictures, and array files."""

from __future__ import annotations

import logging
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from rae_serve import data_sets, picture_files
from rae_serve.arrays import Pixels
from rae_serve.errors import InvalidInput
from rae_serve.files import printable

Split = Literal["train", "test"]

log: Final = logging.getLogger(__name__)

# The name of each data set of torchvision, and of its class there.
TORCHVISION: Final = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "celeba": "CelebA"}
SYNTHETIC: Final = {"synthetic-8": 8, "synthetic-16": 16}  # name → true dimension
DIGITS_TRAIN: Final = 1500  # scikit-learn has 1,797 digits and no split; the rest are the test split


def read(source: str, data_set: str, split: Split) -> tuple[str, Pixels | list[Path]]:
    """Read the images of a source, or list the files that hold them.

    Args:
        source: A data set by name (one of `data_sets.NAMES`), a folder in which torchvision keeps data sets, any
            other folder of pictures, or a .npy or .npz file.
        data_set: The data set to read from a folder that holds several.
        split: "train" or "test". Folders of pictures and array files have no test split.

    Returns:
        The name of the data set, folder or file, and its images: uint8 [N, H, W, C], or the paths of picture files.

    Raises:
        InvalidInput: naming `data`, if the source is none of these, cannot be read, or has no test split.
    """
    path = Path(source)
    if split == "train" and source in data_sets.NAMES and path.exists():
        log.warning("data: %s is the data set of that name; for the folder or file here, write ./%s", source, source)
    if split == "test" and not has_test_split(source, data_set):
        raise InvalidInput("data", f"{source} has no test split")
    if source == "digits":
        return source, _digits(split)
    if source in SYNTHETIC:
        return source, _synthetic(SYNTHETIC[source], split)
    if source in TORCHVISION:
        return source, _torchvision(source, cache_folder() / "data", split, download=True)
    if path.is_dir():
        if found := data_sets.found_in(path, data_set):
            return found, _torchvision(found, path, split, download=False)
        if files := picture_files.find(path):
            return printable(path.resolve().name), files
        raise InvalidInput("data", f"{source} is empty: it holds no image")
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        return printable(path.stem), _array(path)
    known = ", ".join(data_sets.NAMES)
    raise InvalidInput("data", f"{source!r} is neither a data set ({known}), nor a folder, nor a .npy or .npz file")


def has_test_split(source: str, data_set: str) -> bool:
    """Return whether `read` finds a test split: data sets have one, folders of pictures and array files do not."""
    return source in data_sets.NAMES or data_sets.found_in(Path(source), data_set) is not None


def torchvision_class(name: str) -> Callable[..., Any]:
    """Return torchvision's class for a data set of TORCHVISION."""
    from torchvision import datasets

    return getattr(datasets, TORCHVISION[name])


def cache_folder() -> Path:
    """Return the folder for downloads and decoded images: RAE_SERVE_CACHE, or ~/.cache/rae-serve."""
    return Path(os.environ.get("RAE_SERVE_CACHE") or Path.home() / ".cache" / "rae-serve")


def _digits(split: Split) -> Pixels:
    from sklearn.datasets import load_digits

    images: npt.NDArray[np.float64] = load_digits().images  # [N, 8, 8], from 0 to 16
    greys = np.rint(images * (255 / 16)).astype(np.uint8)[..., None]
    return greys[:DIGITS_TRAIN] if split == "train" else greys[DIGITS_TRAIN:]


def _synthetic(dim: int, split: Split) -> Pixels:
    """Make images of a known true dimension, uint8 [N, 8, 16, 1]: MaskAAE's Synthetic-8 and Synthetic-16.

    A fixed random MLP maps N(0, I) of `dim` dimensions to the logits of grey levels, as in figures 2 and 5 of the
    authors' talk. The authors do not state the size of the MLP. Ours has two hidden layers of 64 with tanh,
    and each logit has a standard deviation of 1.5.
    """
    rng = np.random.default_rng([dim, 0])
    weights = [rng.normal(0.0, size[0] ** -0.5, size) for size in ((dim, 64), (64, 64), (64, 128))]
    count, seed = (60_000, 1) if split == "train" else (10_000, 2)
    points = np.random.default_rng([dim, seed]).normal(size=(count, dim))
    hidden = np.tanh(1.5 * np.tanh(1.5 * points @ weights[0]) @ weights[1])
    logits = hidden @ weights[2]
    logits *= 1.5 / logits.std(axis=0)
    return np.rint(255.0 / (1.0 + np.exp(-logits))).astype(np.uint8).reshape(-1, 8, 16, 1)


def _torchvision(name: str, root: Path, split: Split, download: bool) -> Pixels | list[Path]:
    which: dict[str, str | bool] = {"split": split} if name == "celeba" else {"train": split == "train"}
    try:
        data = torchvision_class(name)(root, download=download, **which)
    except Exception as error:  # torchvision, the network and gdown raise errors of many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        problem = f"{name} cannot be loaded from {root} ({reason}); set --data to the folder that holds it"
        raise InvalidInput("data", problem) from None
    if name == "celeba":
        return [root / "celeba" / "img_align_celeba" / file for file in data.filename]
    return _channels_last(np.asarray(data.data), f"{name} at {root}")


def _array(path: Path) -> Pixels:
    try:
        if path.suffix.lower() == ".npy":
            return _channels_last(np.lib.format.open_memmap(path, mode="r"), str(path))
        with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            names = loaded.files
            if "images" not in names and len(names) != 1:
                raise InvalidInput("data", f"{path} must hold an array named images; it holds {', '.join(names)}")
            return _channels_last(loaded["images" if "images" in names else names[0]], str(path))
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InvalidInput("data", f"{path} cannot be read as an array file ({error})") from None


def _channels_last(array: npt.NDArray[Any], where: str) -> Pixels:
    """Return uint8 images with an axis for channels. Raise InvalidInput, naming `where`, for any other array."""
    found = f"{array.dtype} {list(array.shape)}"
    if array.ndim == 3 and array.shape[-1] <= 4:
        problem = f"{where} seems to hold a single image, {found}; images are [N, H, W, C], narrow ones [N, H, W, 1]"
        raise InvalidInput("data", problem)
    shaped = array[..., None] if array.ndim == 3 else array
    if shaped.dtype != np.uint8 or shaped.ndim != 4 or shaped.shape[-1] not in (1, 3) or not len(shaped):
        raise InvalidInput("data", f"{where} must be uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3], not {found}")
    return shaped
