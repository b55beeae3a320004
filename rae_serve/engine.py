"""The engine: sample, decode and encode with a bundle on ONNX Runtime, NumPy arrays in and out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from rae_serve import arrays, interpolation, noise
from rae_serve.arrays import Latents, Pixels
from rae_serve.batching import InFlight, MicroBatcher, Rows
from rae_serve.bundle import Bundle
from rae_serve.errors import InvalidInput, NotFound
from rae_serve.noise import SeededRows
from rae_serve.sessions import Device, Sessions, choose_hardware

Observe = Callable[[str, int], None]  # called with the name of a graph and the rows of a batch
Run = Callable[[Rows], Rows]

MAX_TEMPERATURE = 10.0
MAX_STRENGTH = 100.0


class Engine:
    """Samples, decodes and encodes with one bundle.

    An engine is safe to call from many threads, and their requests share batches. The pixels of a row have the same
    bits, whatever else is in its batch. `sample`, `decode`, … wait for their results; `submit_sample`,
    `submit_decode`, … return futures.

    Args:
        bundle: The model.
        device: "cpu", "cuda", or "auto", which is CUDA if it can be used, else the CPU.
        device_id: Index of the CUDA device.
        threads: CPU cores that a graph may use; 0 means all. A lone request has them all, several share them.
        engines: How many engines, in processes of their own, have these cores. Each takes its share of them while it
            has several requests.
        max_batch: The largest batch. Higher values can give more throughput and need more memory.
        max_waiting: How many rows may wait for a graph. A request beyond this limit raises Overloaded.
        observe: Called with the graph's name and the number of rows of every batch; None observes nothing.

    Raises:
        RaeServeError: `device` is "cuda" and CUDA cannot be used.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device = "auto",
        device_id: int = 0,
        threads: int = 0,
        engines: int = 1,
        max_batch: int = 64,
        max_waiting: int = 2048,
        observe: Observe | None = None,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.device = choose_hardware(device, bundle.graph("prior"), device_id)
        self._in_flight = InFlight()
        sessions = Sessions(
            self.device,
            device_id=device_id,
            threads=threads,
            engines=engines,
            max_batch=max_batch,
            is_lone_request=self._in_flight.is_only,
        )

        def batched(graph: str, run: Run) -> MicroBatcher:
            return MicroBatcher(
                run,
                max_rows=max_batch,
                max_waiting=max_waiting,
                runners=sessions.batches_at_once,
                observe=functools.partial(observe, graph) if observe else None,
            )

        prior, decoder, encoder = (sessions.open(bundle.graph(name)) for name in ("prior", "decoder", "encoder"))
        # Prior and decoder in one batch: handing the latents to another thread would take longer than a light prior.
        self._generator = batched("generator", lambda seeded_rows: decoder(prior(self._noise_of(seeded_rows))))
        self._prior = batched("prior", prior)
        self._decoder = batched("decoder", decoder)
        self._encoder = batched("encoder", encoder)

    @property
    def waiting(self) -> dict[str, int]:
        """Number of rows that wait, by graph."""
        return {
            "generator": self._generator.waiting,
            "prior": self._prior.waiting,
            "decoder": self._decoder.waiting,
            "encoder": self._encoder.waiting,
        }

    def noise(self, n: int, *, seed: int, offset: int = 0, temperature: float = 1.0) -> Latents:
        """Return the noise that `sample` with these arguments turns into images, float32 [n, noise_dim]."""
        return self._noise_of(_seeded_rows(n, seed, offset, temperature))

    def sample(self, n: int = 1, *, seed: int, offset: int = 0, temperature: float = 1.0) -> Pixels:
        """Generate images. Row i of seed s is always the same image.

        Args:
            n: How many images.
            seed: The seed of the noise.
            offset: The first row of the seed.
            temperature: Factor on the gaussian columns of the noise, from 0 to 10.

        Returns:
            Images, uint8 [n, H, W, C]: rows offset … offset + n − 1.
        """
        return self.submit_sample(n, seed=seed, offset=offset, temperature=temperature).result()

    def latents(self, noise: npt.ArrayLike) -> Latents:
        """Turn noise [N, noise_dim] into latents [N, latent_dim] by the prior."""
        return self.submit_latents(noise).result()

    def decode(self, latents: npt.ArrayLike) -> Pixels:
        """Decode latents [N, latent_dim] to images, uint8 [N, H, W, C]."""
        return self.submit_decode(latents).result()

    def encode(self, images: npt.ArrayLike) -> Latents:
        """Encode preprocessed images, uint8 [N, H, W, C], to latents [N, latent_dim]."""
        return self.submit_encode(images).result()

    def reconstruct(self, images: npt.ArrayLike) -> Pixels:
        """Encode preprocessed images, uint8 [N, H, W, C], and decode their latents."""
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
        """Interpolate from `start` to `end`.

        Args:
            start: The first point: a latent [latent_dim], or noise [noise_dim] if `space` is "noise".
            end: The last point, of the same kind.
            steps: How many latents to return, both ends included.
            space: "latent" interpolates latents. "noise" interpolates noise, which the prior then turns into latents,
                so that every step is as likely a sample as the ends.
            path: "linear" is a straight line. "spherical" is an arc around 0 in noise, or around the mean of the
                training latents in latent space.

        Returns:
            Latents [steps, latent_dim].
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
        """Decode the latents of `between`, which has the same arguments, to images, uint8 [steps, H, W, C]."""
        return self.decode(self.between(start, end, steps, space=space, path=path))

    def edit(self, latents: npt.ArrayLike, attribute: str, strengths: Sequence[float]) -> Pixels:
        """Decode the latents of `moved`, which has the same arguments, to images, uint8 [N · S, H, W, C]."""
        return self.decode(self.moved(latents, attribute, strengths))

    def moved(self, latents: npt.ArrayLike, attribute: str, strengths: Sequence[float]) -> Latents:
        """Move every latent along the direction of an attribute, by every strength.

        Args:
            latents: Latents [N, latent_dim].
            attribute: The name of an attribute in the manifest, or of its opposite.
            strengths: Factors [S] on the direction, within ±100. 1 is the distance between the images with the
                attribute and those without; negative values take the attribute away.

        Returns:
            Latents [N · S, latent_dim]: all strengths of the first latent, then of the second, and so on.

        Raises:
            NotFound: The bundle has no such attribute.
        """
        known = self.manifest.directions()
        if attribute not in known:
            hint = f"it has {', '.join(known)}" if known else "it has none; rae-serve attributes adds them"
            raise NotFound(f"model {self.bundle.name!r} has no attribute {attribute!r}; {hint}")
        moves = arrays.numbers("strengths", strengths)
        if moves.ndim != 1 or not len(moves) or not (np.abs(moves) <= MAX_STRENGTH).all():
            raise InvalidInput("strengths", f"must be numbers within ±{MAX_STRENGTH:g}, at least one")
        rows = arrays.finite_rows("latents", latents, self.manifest.latent.dim)
        return interpolation.along(rows, known[attribute], moves)

    def submit_sample(
        self, n: int, *, seed: int, offset: int = 0, temperature: float = 1.0, deadline: float | None = None
    ) -> Future[Pixels]:
        """Start `sample` and return a future of the images.

        The future raises Expired if rows still wait at `deadline`, a time of time.monotonic(); None waits for ever.
        """
        return self._submit(self._generator, _seeded_rows(n, seed, offset, temperature), deadline)

    def submit_rows(
        self, seed: npt.ArrayLike, row: npt.ArrayLike, *, temperature: float = 1.0, deadline: float | None = None
    ) -> Future[Pixels]:
        """Start to generate the image of every pair of a seed and a row; return a future, as `submit_sample` does.

        Args:
            seed: N seeds.
            row: N rows, one of each seed.
            temperature: Factor on the gaussian columns of the noise, from 0 to 10.
            deadline: A time of time.monotonic(); None waits for ever.
        """
        seeds, rows = arrays.integers("seed", seed), arrays.integers("row", row)
        if len(seeds) != len(rows):
            raise InvalidInput("row", f"must be as many as the seeds, {len(seeds)}, not {len(rows)}")
        return self._submit(self._generator, noise.seeded_rows(seeds, rows, check_temperature(temperature)), deadline)

    def submit_latents(self, noise: npt.ArrayLike, deadline: float | None = None) -> Future[Latents]:
        """Start `latents` and return a future, as `submit_sample` does."""
        rows = arrays.finite_rows("noise", noise, self.manifest.noise.dim)
        return self._submit(self._prior, rows, deadline)

    def submit_decode(self, latents: npt.ArrayLike, deadline: float | None = None) -> Future[Pixels]:
        """Start `decode` and return a future, as `submit_sample` does."""
        rows = arrays.finite_rows("latents", latents, self.manifest.latent.dim)
        return self._submit(self._decoder, rows, deadline)

    def submit_encode(self, images: npt.ArrayLike, deadline: float | None = None) -> Future[Latents]:
        """Start `encode` and return a future, as `submit_sample` does."""
        pixels = np.asarray(images)
        shape = self.manifest.image.shape
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape or len(pixels) < 1:
            raise InvalidInput(
                "images", f"must be uint8 {arrays.shape_text(shape)}, not {pixels.dtype} {list(pixels.shape)}"
            )
        return self._submit(self._encoder, pixels, deadline)

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
        """Start `between` and return a future, as `submit_sample` does."""
        arrays.integer("steps", steps, least=1)
        dim = self.manifest.noise.dim if space == "noise" else self.manifest.latent.dim
        first, last = arrays.finite_rows("start", [start], dim)[0], arrays.finite_rows("end", [end], dim)[0]
        if space == "noise":
            roles = self.manifest.noise.roles
            return self.submit_latents(interpolation.between_noises(first, last, steps, path, roles), deadline)
        done: Future[Latents] = Future()
        done.set_result(interpolation.between(first, last, steps, path, self.manifest.latent.mean))
        return done

    def close(self) -> None:
        """Finish the rows that wait, then end the batching threads."""
        for batcher in (self._generator, self._prior, self._decoder, self._encoder):
            batcher.close()

    def _submit(self, graph: MicroBatcher, rows: Rows, deadline: float | None) -> Future[Rows]:
        return self._in_flight.track(len(rows), lambda: graph.submit(rows, deadline))

    def _noise_of(self, rows: SeededRows) -> Latents:
        return noise.of_rows(rows, self.manifest.noise.roles)


def _seeded_rows(n: int, seed: int, offset: int, temperature: float) -> SeededRows:
    """Check the arguments of `Engine.sample` and return the n rows that they name."""
    arrays.integer("n", n, least=1)
    first = arrays.integer("offset", offset)
    arrays.integer("offset", first + n - 1)
    rows = np.arange(first, first + n, dtype=np.uint64)
    return noise.seeded_rows(arrays.integer("seed", seed), rows, check_temperature(temperature))


def check_temperature(temperature: float) -> float:
    """Return the temperature as a float. Raise InvalidInput unless it is one number from 0 to MAX_TEMPERATURE."""
    factor = arrays.numbers("temperature", temperature)
    if factor.ndim:
        raise InvalidInput("temperature", f"must be one number, not {temperature}")
    arrays.in_range("temperature", float(factor), 0, MAX_TEMPERATURE)
    return float(factor)
