"""Images as training sees them: uint8 arrays, a part held out, and endless batches."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from rae_serve import images as pictures
from rae_serve.errors import InvalidInput, RaeServeError
from rae_serve.files import write
from rae_serve.images import Pixels, Preprocessing
from training import sources

MAX_VALIDATION: Final = 5000
MAX_FILE_PIXELS: Final = 178_000_000  # of a file to train on: one's own, so as much as Pillow opens
LARGE_BYTES: Final = 1 << 30  # decoded images beyond this are mapped from a cache file, not held in memory
_GUESSED_SIDE: Final = 64  # of images that come in many sizes: what a CPU trains on in an hour
_HEADERS_READ: Final = 1000

Index = npt.NDArray[np.int64]
Unreadable = list[tuple[int, str]]  # row, and why


@dataclass(frozen=True)
class Dataset:
    """uint8 images [N, H, W, C], and which of them train and which are held out to choose by."""

    name: str
    images: Pixels
    train: Index
    validation: Index
    preprocessing: Preprocessing
    skipped: tuple[str, ...] = ()  # files that are no readable images, and why

    def holding_out(self, count: int) -> Dataset:
        """The same images, `count` of those that train held out: the same ones whatever a run's seed."""
        order = np.random.default_rng(0).permutation(self.train)
        return replace(self, train=np.sort(order[count:]), validation=np.sort(order[:count]))

    def digest(self) -> str:
        """SHA-256 over the shape and pixels of the training images, in order."""
        sha256 = hashlib.sha256(repr((len(self.train), *self.images.shape[1:])).encode())
        for start in range(0, len(self.train), 4096):
            sha256.update(self.images[self.train[start : start + 4096]].tobytes())
        return sha256.hexdigest()


class Batches(Iterator[Tensor]):
    """Endless shuffled batches of the rows at `index`. Batch k is a function of (seed, k): `drawn` is all its state.

    Every epoch has its own order and leaves out the rows that fill no whole batch. uint8 images [N, H, W, C]
    come as float32 [B, C, H, W] in [0, 1], each with even odds mirrored left to right where `flip` says so; other
    rows come as they are.
    """

    def __init__(
        self,
        rows: npt.NDArray[Any],
        index: Index,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        flip: bool = False,
    ) -> None:
        self.rows = rows
        self.index = index
        self.batch_size = min(batch_size, len(index))
        self.seed = seed
        self.device = device
        self.flip = flip
        self.drawn = 0
        self._epoch = -1
        self._order = index

    def __next__(self) -> Tensor:
        epoch, k = divmod(self.drawn, len(self.index) // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.index)
        self.drawn += 1
        rows = self.rows[self._order[k * self.batch_size : (k + 1) * self.batch_size]]
        if self.flip:
            # k + 1: numpy takes [seed, epoch, 0] for [seed, epoch], which the order is drawn by.
            mirrored = np.random.default_rng([self.seed, epoch, k + 1]).random(len(rows)) < 0.5
            rows[mirrored] = rows[mirrored, :, ::-1]
        return to_tensor(rows, self.device)


def to_tensor(rows: npt.NDArray[Any], device: torch.device) -> Tensor:
    """uint8 [N, H, W, C] → float32 [N, C, H, W] in [0, 1]; anything else as it is."""
    tensor = torch.from_numpy(rows).to(device)
    if tensor.dtype == torch.uint8:
        tensor = tensor.permute(0, 3, 1, 2).contiguous().float().div_(255.0)
    return tensor


def to_pixels(x: Tensor) -> Tensor:
    """float [N, C, H, W] in [0, 1] → uint8 [N, H, W, C]: clipped, then rounded half to even."""
    return (x * 255.0).clamp(0.0, 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)


def load(
    source: str,
    known_as: str,
    *,
    shape: dict[str, Any],
    validation: float = 0.0,
    split: sources.Split = "train",
) -> Dataset:
    """The images of `source` (see sources.read), a fraction `validation` of them held out, at most 5,000.

    `shape` holds the fields of Preprocessing that are decided; the rest follows from the data. Files that are
    no images are skipped and named in the result. Raises InvalidInput, naming `data`, where they are most.
    """
    name, raw = sources.read(source, known_as, split)
    preprocessing = Preprocessing(**(_guess(raw, source) | shape))
    if isinstance(raw, list):
        images, unreadable = _decode(raw, preprocessing)
        skipped = tuple(f"{raw[row]}: {reason}" for row, reason in unreadable)
        if 2 * len(unreadable) > len(raw):
            raise InvalidInput(
                "data", f"{len(unreadable)} of {len(raw)} files are no readable images, such as {skipped[0]}"
            )
    else:
        images, unreadable, skipped = _fit(raw, preprocessing), [], ()
    readable = np.delete(np.arange(len(images)), [row for row, _ in unreadable])
    held_out = min(int(len(readable) * validation), MAX_VALIDATION)
    if len(readable) - held_out < 2:
        raise InvalidInput("data", f"{source} has {len(readable)} images, too few to train on")
    return Dataset(name, images, readable, readable[:0], preprocessing, skipped).holding_out(held_out)


def test_images(source: str, known_as: str, shape: dict[str, Any]) -> Pixels:
    """The readable images of the test split, uint8 [N, H, W, C]. Raises InvalidInput, naming `data`, for none."""
    test = load(source, known_as, shape=shape, split="test")
    return test.images[test.train]


def _guess(raw: Pixels | list[Path], source: str) -> dict[str, Any]:
    """Height, width and mode that fit the data: their own where they agree, else a square of 64 or 32."""
    if isinstance(raw, list):
        step = -(-len(raw) // _HEADERS_READ)
        headers = [header for path in raw[::step] if (header := _header(path))]
        if not headers:
            raise InvalidInput("data", f"{source} holds no image that can be read")
        sizes = {(width, height) for width, height, _ in headers}
        grey = all(mode in ("L", "1", "LA", "I;16") for *_, mode in headers)
    else:
        sizes = {(raw.shape[2], raw.shape[1])}
        grey = raw.shape[3] == 1
    width, height = next(iter(sizes))
    if len(sizes) > 1 or width % 4 or height % 4 or max(width, height) > 2 * _GUESSED_SIDE:
        small = np.median([min(size) for size in sizes]) < _GUESSED_SIDE
        width = height = _GUESSED_SIDE // 2 if small else _GUESSED_SIDE
    return {"width": width, "height": height, "mode": "L" if grey else "RGB"}


def _header(path: Path) -> tuple[int, int, str] | None:
    try:
        with Image.open(path) as picture:
            return *pictures.upright_size(picture), picture.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _fit(raw: Pixels, preprocessing: Preprocessing) -> Pixels:
    """An array's images, preprocessed; the array itself where that changes nothing."""
    height, width, channels = raw.shape[1:]
    if channels == preprocessing.shape[2] and preprocessing.keeps(width, height):
        return raw
    images = np.empty((len(raw), *preprocessing.shape), np.uint8)
    with ThreadPoolExecutor() as threads:
        prepared = threads.map(lambda image: preprocessing(_picture(image)), raw)
        for row, image in enumerate(_shown(prepared, len(raw), "preparing")):
            images[row] = image
    return images


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _decode(files: Sequence[Path], preprocessing: Preprocessing) -> tuple[Pixels, Unreadable]:
    """Images of files; those that are none are black. Kept in the cache where they are large."""
    shape = (len(files), *preprocessing.shape)
    if np.prod(shape, dtype=np.int64) <= LARGE_BYTES:
        images = np.zeros(shape, np.uint8)
        unreadable = []
        for row, image in enumerate(_decoded(files, preprocessing)):
            if isinstance(image, str):
                unreadable.append((row, image))
            else:
                images[row] = image
        return images, unreadable
    cached = sources.cache_folder() / "decoded" / f"{_decoded_key(files, preprocessing)}.npy"
    listing = cached.with_suffix(".unreadable.json")
    if not listing.is_file():
        try:
            unreadable = _decode_to(cached, files, preprocessing)
        except OSError as error:
            problem = f"{cached.parent} cannot be written: {error.strerror}; RAE_SERVE_CACHE names another cache"
            raise RaeServeError(problem) from None
        write(listing, json.dumps(unreadable).encode())  # last: it says that the array beside it is there
    return np.load(cached, mmap_mode="r"), json.loads(listing.read_text())


def _decode_to(path: Path, files: Sequence[Path], preprocessing: Preprocessing) -> Unreadable:
    """Write the images of files as one array.

    Row by row, not through a map of the file, where a full disk would be a signal that kills the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *preprocessing.shape)}
    black = np.zeros(preprocessing.shape, np.uint8)
    unreadable = []
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".draft", delete=False) as draft:
        try:
            np.lib.format.write_array_header_1_0(draft, header)
            for row, image in enumerate(_decoded(files, preprocessing)):
                if isinstance(image, str):
                    unreadable.append((row, image))
                    image = black
                draft.write(image)
            draft.flush()
            os.fsync(draft.fileno())
            Path(draft.name).replace(path)
        finally:
            Path(draft.name).unlink(missing_ok=True)
    return unreadable


def _decoded(files: Sequence[Path], preprocessing: Preprocessing) -> Iterator[Pixels | str]:
    """The image of each file in turn, or why there is none."""

    def decode(path: Path) -> Pixels | str:
        try:
            return preprocessing(pictures.read(path.read_bytes(), max_pixels=MAX_FILE_PIXELS))
        except InvalidInput as error:
            return error.problem
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except ValueError as error:  # a conversion that Pillow lacks
            return str(error)

    with ThreadPoolExecutor() as threads:  # Pillow frees the GIL while it decodes
        yield from _shown(threads.map(decode, files), len(files), "decoding")


def _decoded_key(files: Sequence[Path], preprocessing: Preprocessing) -> str:
    sha256 = hashlib.sha256(preprocessing.model_dump_json().encode())
    for path in files:
        try:
            facts: os.stat_result | None = path.stat()
        except OSError:  # it will be skipped, and named
            facts = None
        stamp = f"{facts.st_size}\0{facts.st_mtime_ns}" if facts else ""
        sha256.update(f"{path.resolve()}\0{stamp}\n".encode())
    return sha256.hexdigest()[:32]


def _shown(items: Iterable[Any], total: int, doing: str) -> Iterable[Any]:
    """The items, with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(items, f"{doing} {total:,} images", total, console=console, disable=not console.is_terminal)
