"""A bundle at work: numpy in, numpy out, on ONNX Runtime."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from rae_serve import arrays, interpolation, noise
from rae_serve.arrays import Latents, Pixels
from rae_serve.batching import MicroBatcher, then
from rae_serve.bundle import Bundle
from rae_serve.errors import InvalidInput, NotFound
from rae_serve.sessions import Device, Graph, fixed_sizes, usable

Observe = Callable[[str, int], None]  # a graph's name, the rows of a batch
Run = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
Result = TypeVar("Result")

MAX_TEMPERATURE = 10.0
MAX_STRENGTH = 100.0
# Rows of a seed as they wait for a batch: their noise is made for the whole batch at once.
_DRAW: Final = np.dtype([("seed", np.uint64), ("row", np.uint64), ("temperature", np.float32)])


class Engine:
    """Samples, decodes and encodes with one bundle; safe to call from many threads, which share batches.

    `device` "auto" takes the CUDA device `device_id` where it can be used, else the CPU; "cuda" raises
    RaeServeError where CUDA is not really used. `threads` are the cores that a graph may use; 0 means all. A request
    that is alone has them all, several share them; the pixels are the same bits, whatever runs beside them. A graph
    runs at most `max_batch` rows at once, and raises Overloaded where `max_waiting` rows wait for it already.

    Every verb waits for its result; `submit_…` give a future instead, for callers who have other things to do.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        device_id: int = 0,
        threads: int = 0,
        max_batch: int = 64,
        max_waiting: int = 2048,
        observe: Observe | None = None,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.device = usable(device, bundle.graph("prior"), device_id)
        self._under_way: list[int] = []  # the rows of every request that has no answer yet
        threads = threads or os.cpu_count() or 1
        # Two batches side by side, on half of the cores each, take less time than one after the other on all.
        runners = 2 if self.device == "cpu" and threads > 1 else 1
        sizes = fixed_sizes(max_batch)

        def graph(name: str) -> Run:
            def on(cores: int) -> Graph:
                return Graph(bundle.graph(name), self.device, device_id=device_id, threads=cores, sizes=sizes)

            if runners == 1:
                return on(threads)
            # A session's threads are fixed, so there are two of each graph, and its weights are in memory twice.
            side_by_side, alone = on(threads // runners), on(threads)
            return lambda rows: (alone if self._is_all(rows) else side_by_side)(rows)

        def batcher(name: str, run: Run) -> MicroBatcher:
            seen = functools.partial(observe, name) if observe else None
            limits = {"max_rows": max_batch, "max_waiting": max_waiting}
            return MicroBatcher(run, **limits, runners=runners, observe=seen)

        prior = graph("prior")
        self._draws = batcher("prior", lambda draws: prior(self._noise_of(draws)))
        self._prior = batcher("prior", prior)
        self._decoder = batcher("decoder", graph("decoder"))
        self._encoder = batcher("encoder", graph("encoder"))

    @property
    def waiting(self) -> dict[str, int]:
        """Rows that wait, by graph."""
        return {
            "prior": self._draws.waiting + self._prior.waiting,
            "decoder": self._decoder.waiting,
            "encoder": self._encoder.waiting,
        }

    def noise(self, n: int, *, seed: int, offset: int = 0, temperature: float = 1.0) -> Latents:
        """Rows offset … offset + n − 1 of a seed's noise, float32 [n, noise_dim]; gaussian columns × temperature."""
        return self._noise_of(_draw(n, seed, offset, temperature))

    def sample(self, n: int = 1, *, seed: int, offset: int = 0, temperature: float = 1.0) -> Pixels:
        """Generated images, uint8 [n, H, W, C]: row i of seed s is the same image always."""
        return self.submit_sample(n, seed=seed, offset=offset, temperature=temperature).result()

    def latents(self, noise: npt.ArrayLike) -> Latents:
        """The prior: noise [N, noise_dim] → latents [N, latent_dim]."""
        return self.submit_latents(noise).result()

    def decode(self, latents: npt.ArrayLike) -> Pixels:
        """Latents [N, latent_dim] → images, uint8 [N, H, W, C]."""
        return self.submit_decode(latents).result()

    def encode(self, images: npt.ArrayLike) -> Latents:
        """Images, uint8 [N, H, W, C], preprocessed already → latents [N, latent_dim]."""
        return self.submit_encode(images).result()

    def reconstruct(self, images: npt.ArrayLike) -> Pixels:
        """Images, uint8 [N, H, W, C], encoded and decoded again."""
        return self.decode(self.encode(images))

    def between(
        self,
        start: npt.ArrayLike,
        end: npt.ArrayLike,
        steps: int,
        *,
        space: interpolation.Space = "latent",
        path: interpolation.Path = "linear",
    ) -> Latents:
        """Latents [steps, latent_dim] on the way from `start` to `end`, one row each of the `space`.

        In latent space the way is taken there, an arc about the mean of the training latents. In noise space
        it is taken before the prior, an arc about 0, so that every step is a sample as likely as its ends.
        """
        return self.submit_between(start, end, steps, space=space, path=path).result()

    def interpolate(
        self,
        start: npt.ArrayLike,
        end: npt.ArrayLike,
        steps: int,
        *,
        space: interpolation.Space = "latent",
        path: interpolation.Path = "linear",
    ) -> Pixels:
        """Images, uint8 [steps, H, W, C], of `between`."""
        return self.decode(self.between(start, end, steps, space=space, path=path))

    def edit(self, latents: npt.ArrayLike, attribute: str, strengths: Sequence[float]) -> Pixels:
        """Images, uint8 [N · S, H, W, C]: every latent moved along an attribute by every strength.

        Strength 1 is the distance between the attribute's two classes; a negative one takes it away.
        """
        return self.decode(self.moved(latents, attribute, strengths))

    def moved(self, latents: npt.ArrayLike, attribute: str, strengths: Sequence[float]) -> Latents:
        """The latents of `edit`, [N · S, latent_dim]. Raises NotFound, naming the attributes that there are."""
        known = self.manifest.attributes
        if attribute not in known:
            there_are = f"it has {', '.join(known)}" if known else "it has none; rae-serve attributes adds them"
            raise NotFound(f"model {self.bundle.name!r} has no attribute {attribute!r}; {there_are}")
        moves = arrays.numbers("strengths", strengths)
        if moves.ndim != 1 or not len(moves) or not (np.abs(moves) <= MAX_STRENGTH).all():
            raise InvalidInput("strengths", f"must be numbers within ±{MAX_STRENGTH:g}, at least one")
        rows = arrays.finite("latents", latents, self.manifest.latent.dim)
        return interpolation.along(rows, known[attribute].direction, moves)

    def submit_sample(
        self, n: int, *, seed: int, offset: int = 0, temperature: float = 1.0, deadline: float | None = None
    ) -> Future[Pixels]:
        """`sample`, as a future that raises Expired where it still waits at `deadline` (of time.monotonic)."""
        draws = _draw(n, seed, offset, temperature)
        # At once, not when the latents are there; what waits for its latents will be there before.
        self._decoder.admit(self._draws.waiting + n)
        latents = self._draws.submit(draws, deadline)
        return self._counted(n, then(latents, lambda rows: self._decoder.submit(rows, deadline, admitted=True)))

    def submit_latents(self, noise: npt.ArrayLike, deadline: float | None = None) -> Future[Latents]:
        """`latents`, as a future."""
        rows = arrays.finite("noise", noise, self.manifest.noise.dim)
        return self._counted(len(rows), self._prior.submit(rows, deadline))

    def submit_decode(self, latents: npt.ArrayLike, deadline: float | None = None) -> Future[Pixels]:
        """`decode`, as a future."""
        rows = arrays.finite("latents", latents, self.manifest.latent.dim)
        return self._counted(len(rows), self._decoder.submit(rows, deadline))

    def submit_encode(self, images: npt.ArrayLike, deadline: float | None = None) -> Future[Latents]:
        """`encode`, as a future."""
        pixels = np.asarray(images)
        shape = self.manifest.image.shape
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape or len(pixels) < 1:
            raise InvalidInput(
                "images", f"must be uint8 {arrays.shape_text(shape)}, not {pixels.dtype} {list(pixels.shape)}"
            )
        return self._counted(len(pixels), self._encoder.submit(pixels, deadline))

    def submit_between(
        self,
        start: npt.ArrayLike,
        end: npt.ArrayLike,
        steps: int,
        *,
        space: interpolation.Space = "latent",
        path: interpolation.Path = "linear",
        deadline: float | None = None,
    ) -> Future[Latents]:
        """`between`, as a future."""
        if arrays.integer("steps", steps) < 1:
            raise InvalidInput("steps", f"must be at least 1, not {steps}")
        dim = self.manifest.noise.dim if space == "noise" else self.manifest.latent.dim
        a, b = arrays.finite("start", [start], dim)[0], arrays.finite("end", [end], dim)[0]
        if space == "noise":
            return self.submit_latents(
                interpolation.between_noises(a, b, steps, path, self.manifest.noise.roles), deadline
            )
        done: Future[Latents] = Future()
        done.set_result(interpolation.between(a, b, steps, path, self.manifest.latent.mean))
        return done

    def close(self) -> None:
        """End the batching threads, after what waits is done."""
        for batcher in (self._draws, self._prior, self._decoder, self._encoder):
            batcher.close()

    def _counted(self, rows: int, future: Future[Result]) -> Future[Result]:
        """A request of so many rows is under way until its future has an outcome."""
        self._under_way.append(rows)
        future.add_done_callback(lambda _: self._under_way.remove(rows))
        return future

    def _is_all(self, rows: npt.NDArray[Any]) -> bool:
        """Whether these rows are one request's, all of it, with nothing else under way."""
        return self._under_way == [len(rows)]

    def _noise_of(self, draws: npt.NDArray[Any]) -> Latents:
        rows = noise.rows_of(draws["seed"], draws["row"], self.manifest.noise.dim)
        if (draws["temperature"] != 1.0).any():
            gaussian = [i for i, role in enumerate(self.manifest.noise.roles) if role == "gaussian"]
            rows[:, gaussian] *= draws["temperature"][:, None]
        return rows


def _draw(n: int, seed: int, offset: int, temperature: float) -> npt.NDArray[Any]:
    """Rows offset … offset + n − 1 of a seed, [n] of _DRAW, checked."""
    if arrays.integer("n", n) < 1:
        raise InvalidInput("n", f"must be at least 1, not {n}")
    warmth = arrays.numbers("temperature", temperature)
    if warmth.ndim or not 0 <= warmth <= MAX_TEMPERATURE:
        raise InvalidInput("temperature", f"must be from 0 to {MAX_TEMPERATURE:g}, not {temperature}")
    first = arrays.integer("offset", offset)
    arrays.integer("offset", first + n - 1)
    draws = np.empty(n, _DRAW)
    draws["seed"] = arrays.integer("seed", seed)
    draws["row"] = np.arange(first, first + n, dtype=np.uint64)
    draws["temperature"] = warmth
    return draws
