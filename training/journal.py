"""What a run writes for people to read: metrics, and grids of images."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from rae_serve import files
from rae_serve import images as pictures
from rae_serve.arrays import Pixels

log: Final = logging.getLogger(__name__)

METRICS: Final = "metrics.jsonl"


class Journal:
    """The metrics of a run as JSON lines, its grids as PNG files, and both for TensorBoard.

    A run that goes back to a checkpoint deletes the lines that were written after it.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._metrics = run / METRICS
        self._board: SummaryWriter | None = None

    @property
    def bytes(self) -> int:
        """Length of the file of metrics."""
        return self._metrics.stat().st_size if self._metrics.exists() else 0

    def go_back(self, size: int) -> None:
        """Keep only the first `size` bytes of the metrics."""
        if size:
            with self._metrics.open("ab") as file:
                file.truncate(size)
        else:
            self._metrics.unlink(missing_ok=True)

    @contextmanager
    def opened(self, step: int) -> Iterator[None]:
        """In this block, write to TensorBoard's files too. They hide earlier values from `step` on."""
        folder = self.run / "tensorboard"
        if files.printable(folder) != str(folder):
            log.warning("%s is no UTF-8 path, so TensorBoard cannot write to it", files.printable(folder))
            yield
            return
        with _quiet_threads(), SummaryWriter(str(folder), purge_step=step) as self._board:
            yield

    def write(self, step: int, stage: str, values: Mapping[str, Any]) -> None:
        """Add one line of metrics; TensorBoard gets the values that are numbers.

        Args:
            step: Steps of all stages so far.
            stage: Name of the stage.
            values: The metrics by name, in JSON's types.
        """
        for name, value in {"stage": stage, **values}.items():
            if self._board and isinstance(value, int | float):
                self._board.add_scalar(name, value, step)
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "stage": stage, **values}) + "\n")

    def show(self, step: int, name: str, images: Pixels) -> None:
        """Write a grid of images as {name}/step-{step}.png.

        Args:
            step: Steps of all stages so far.
            name: Name of the grid, and of its folder.
            images: uint8 [N, H, W, C].
        """
        grid = pictures.grid(images)
        path = self.run / name / f"step-{step:09d}.png"
        path.parent.mkdir(exist_ok=True)
        files.write(path, pictures.encode(grid))
        if self._board:
            self._board.add_image(name, grid, step, dataformats="HWC")


def pairs(images: Pixels, others: Pixels) -> Pixels:
    """Return [2N, H, W, C]: each image followed by its partner."""
    return np.stack([images, others], axis=1).reshape(-1, *images.shape[1:])


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Silence the thread of TensorBoard, which on a full disk would print a traceback beside the run's own error."""
    usual = threading.excepthook
    threading.excepthook = lambda args: None if isinstance(args.exc_value, OSError) else usual(args)
    try:
        yield
    finally:
        threading.excepthook = usual
