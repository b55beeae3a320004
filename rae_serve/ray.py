"""Images of a seed as a dataset of Ray Data: `pip install 'rae-serve[ray]'`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rae_serve import arrays, extras, noise
from rae_serve.bundle import Bundle
from rae_serve.engine import check_temperature
from rae_serve.generation import BATCH, Sampler
from rae_serve.sessions import Device
from rae_serve.shards import check_rows

with extras.needed("ray"):
    import ray.data


def dataset(
    bundle: Path | str,
    *,
    seed: int,
    rows: range,
    temperature: float = 1.0,
    device: Device = "auto",
    actors: int = 1,
    **resources: Any,
) -> ray.data.Dataset:
    """Return a lazy dataset of generated images, with the columns `row` (int64) and `image` (uint8 [H, W, C]).

    Ray does not keep the order of the rows. Give Ray more logical CPUs than actors: with two and two it hangs.

    Args:
        bundle: Folder of the bundle, which all machines of the cluster can read.
        seed: The seed of the noise.
        rows: The rows of the seed.
        temperature: Factor on the gaussian columns of the noise, from 0 to 10.
        device: "cpu", "cuda", or "auto", which is CUDA if it can be used, else the CPU.
        actors: How many processes generate images, each on one CPU core.
        resources: Arguments of Ray's `map_batches` that say what each actor has, such as num_gpus=1.

    Raises:
        InvalidInput: A number is outside of its range.
        BundleError: The bundle is missing or damaged.
    """
    check_rows(rows)
    folder = str(Bundle.load(bundle).path.absolute())
    arguments = (folder, arrays.integer("seed", seed), rows.start, check_temperature(temperature), device)
    pool = ray.data.ActorPoolStrategy(size=arrays.integer("actors", actors, least=1))
    return ray.data.range(len(rows)).map_batches(
        _Images,
        fn_constructor_args=arguments,
        batch_size=max(BATCH.values()),
        compute=pool,
        **resources,
    )


class _Images:
    """An actor that turns numbers of rows into images."""

    def __init__(self, folder: str, seed: int, first: int, temperature: float, device: Device) -> None:
        self._images_of = Sampler(Bundle.load(folder), device)
        self._seed, self._first, self._temperature = seed, first, temperature

    def __call__(self, batch: dict[str, npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[Any]]:
        rows = self._first + batch["id"]
        return {"row": rows, "image": self._images_of(noise.seeded_rows(self._seed, rows, self._temperature))}
