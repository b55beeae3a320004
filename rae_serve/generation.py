"""Generate images by the million: however many workers divide the work, they make the same files."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import numpy as np

from rae_serve import arrays, files, noise, shards
from rae_serve.arrays import Pixels
from rae_serve.bundle import Bundle
from rae_serve.engine import check_temperature
from rae_serve.errors import InvalidInput
from rae_serve.sessions import Device, Graph, Hardware, available_cores, choose_hardware, cuda_memories
from rae_serve.shards import ROWS_PER_SHARD, Encoder, Format, Plan, Series

Report = Callable[[int, int], None]  # called with the rows that are done, and all rows of this worker

BATCH: Final[dict[Hardware, int]] = {"cpu": 64, "cuda": 512}  # rows of one run of a graph
# While one shard is hashed and goes to the disk, the next one keeps the cores busy.
_SHARDS_AT_ONCE: Final = 2


class Sampler:
    """Makes the images of seeded rows in the threads that call it, each of which uses one core.

    `Engine` gathers the rows of many requests and divides a batch among cores, so that a request is answered soon.
    Bulk work is faster with one core for each batch. The images have the same bits. On CUDA, the devices take turns.

    Args:
        bundle: The model.
        device: "cpu", "cuda", or "auto", which is CUDA if it can be used, else the CPU.

    Raises:
        RaeServeError: `device` is "cuda" and CUDA cannot be used.
    """

    def __init__(self, bundle: Bundle, device: Device = "auto") -> None:
        hardware = choose_hardware(device, bundle.graph("prior"), 0)
        self.batch = BATCH[hardware]
        self._roles = bundle.manifest.noise.roles
        self._graphs = itertools.cycle(
            [
                [
                    Graph(bundle.graph(name), hardware, device_id=device_id, threads=1, sizes=(self.batch,))
                    for name in ("prior", "decoder")
                ]
                for device_id in range(len(cuda_memories()) if hardware == "cuda" else 1)
            ]
        )

    def __call__(self, rows: noise.SeededRows) -> Pixels:
        """Return the images of seeded rows, uint8 [N, H, W, C]."""
        prior, decoder = next(self._graphs)
        batches = (rows[first : first + self.batch] for first in range(0, len(rows), self.batch))
        return np.concatenate([decoder(prior(noise.of_rows(batch, self._roles))) for batch in batches])


@dataclass(frozen=True)
class Worker:
    """One of `count` workers that divide the shards among themselves; `index` is from 0 to count − 1."""

    index: int
    count: int


ALONE: Final = Worker(0, 1)


@dataclass(frozen=True)
class Outcome:
    """What `generate` did: the shards that it made, those that it found, and whether the folder is complete."""

    made: int
    found: int
    complete: bool


def generate(
    bundle: Bundle,
    out: Path,
    *,
    seed: int,
    rows: range,
    worker: Worker = ALONE,
    format: Format = "png",
    rows_per_shard: int = ROWS_PER_SHARD,
    temperature: float = 1.0,
    device: Device = "auto",
    threads: int = 0,
    report: Report | None = None,
) -> Outcome:
    """Write images of a seed to shards, except those that are in the folder already and undamaged.

    When all shards of the range are there, `generate.json` lists them.

    Args:
        bundle: The model.
        out: The folder; it is made if need be.
        seed: The seed of the noise.
        rows: The rows of the seed, for all workers together.
        worker: Makes every `count`-th shard, from shard `index` on.
        format: "png" and "webp" make tar files of pictures, "npz" makes NumPy files.
        rows_per_shard: Rows of each shard; the last may have fewer.
        temperature: Factor on the gaussian columns of the noise, from 0 to 10.
        device: "cpu", "cuda", or "auto", which is CUDA if it can be used, else the CPU. CUDA uses every device.
        threads: CPU cores to use; 0 means all that this process may use.
        report: Called from several threads with how many rows are done, and how many this worker has; None reports
            nothing.

    Raises:
        InvalidInput: A number is outside of its range.
        RaeServeError: The folder holds shards of something else, or cannot be written.
    """
    if format not in get_args(Format):
        raise InvalidInput("format", f"must be one of {', '.join(get_args(Format))}, not {format!r}")
    series = Series(
        digest=bundle.manifest.digest,
        seed=arrays.integer("seed", seed),
        temperature=check_temperature(temperature),
        format=format,
    )
    plan = Plan(series, rows, rows_per_shard)
    if not 0 <= worker.index < worker.count:
        raise InvalidInput("shard", f"must be k/K with k from 0 to K − 1, not {worker.index}/{worker.count}")
    arrays.integer("threads", threads)
    mine = range(worker.index, len(plan), worker.count)
    images_of = Sampler(bundle, device)
    encoder = shards.encoder(series, bundle.manifest.image.shape)
    files.make_folder(out)
    names = _names_in(out)
    shards.check_names(out, names, plan)
    _delete_drafts(out, names, plan, mine)
    work = _Work(plan, out, images_of, encoder, mine, threads or available_cores(), report)
    work.run()
    return Outcome(work.made, work.found, shards.write_list(out, _names_in(out), plan, bundle.name))


class _Work:
    """Makes shards. Each is written by one thread, from batches that all lanes compute and encode.

    Args:
        plan: How the rows are cut into shards.
        out: The folder of the shards.
        images_of: Makes the images.
        encoder: Makes the files.
        indices: The shards to make.
        lanes: How many batches are computed at the same time, each on one core.
        report: The argument of `generate`.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path,
        images_of: Sampler,
        encoder: Encoder,
        indices: range,
        lanes: int,
        report: Report | None,
    ) -> None:
        self.made = self.found = 0
        self._plan = plan
        self._out = out
        self._images_of = images_of
        self._encoder = encoder
        self._remaining = iter(indices)
        self._lanes = ThreadPoolExecutor(lanes, "lane")
        self._ahead = lanes + 1  # batches that wait to be written, for each shard: memory has a limit
        self._report = report
        self._done, self._total = 0, plan.count(indices)
        self._lock = threading.Lock()
        self._stopped = False

    def run(self) -> None:
        """Make the shards that are not there, or damaged."""
        with self._lanes, ThreadPoolExecutor(_SHARDS_AT_ONCE, "writer") as writers:
            try:
                running = [writers.submit(self._make_shards) for _ in range(_SHARDS_AT_ONCE)]
                for writer in as_completed(running):
                    writer.result()
            except BaseException:  # Ctrl-C comes here as well
                self._stopped = True
                self._lanes.shutdown(wait=False, cancel_futures=True)
                raise

    def _make_shards(self) -> None:
        while not self._stopped:
            with self._lock:
                index = next(self._remaining, None)
            if index is None:
                return
            rows = self._plan.rows_of(index)
            path = self._out / self._plan.name(index)
            found = shards.is_right(path)
            if found:
                self._add_done(len(rows))
            else:
                self._make_shard(path, rows)
            with self._lock:
                self.found += found
                self.made += not found

    def _make_shard(self, path: Path, rows: range) -> None:
        with files.new_file(path) as file:
            self._encoder.write(file, rows, self._batches(rows))
            shards.seal(file, path, self._plan.series, rows)

    def _batches(self, rows: range) -> Iterator[bytes]:
        """Yield the encoded images of the rows, batch by batch, while the lanes compute the next ones."""
        waiting: deque[Future[bytes]] = deque()
        size = self._images_of.batch
        for start in range(0, len(rows), size):
            waiting.append(self._lanes.submit(self._make_batch, rows[start : start + size]))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _make_batch(self, rows: range) -> bytes:
        series = self._plan.series
        numbers = np.arange(rows.start, rows.stop, dtype=np.uint64)
        pixels = self._images_of(noise.seeded_rows(series.seed, numbers, series.temperature))
        encoded = self._encoder.encode(rows, pixels)
        self._add_done(len(rows))
        return encoded

    def _add_done(self, rows: int) -> None:
        with self._lock:
            self._done += rows
            if self._report:
                self._report(self._done, self._total)


def _names_in(out: Path) -> set[str]:
    with files.named_errors(out, "read"):
        return set(os.listdir(out))


def _delete_drafts(out: Path, names: Iterable[str], plan: Plan, mine: range) -> None:
    """Delete the unfinished files that a killed worker left of the shards `mine`."""
    for name in names:
        index = plan.index(files.target_of_draft(name) or "")
        if index is not None and index in mine:
            with files.named_errors(out / name):
                (out / name).unlink(missing_ok=True)
