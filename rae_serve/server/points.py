"""The latents and the noise of the points in a request."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from fastapi import Request

from rae_serve import arrays
from rae_serve.arrays import Latents
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput
from rae_serve.server import uploads, waiting
from rae_serve.server.schemas import Point
from rae_serve.server.settings import Settings
from rae_serve.server.uploads import Upload


async def latents_of(request: Request, engine: Engine, points: Mapping[str, Point], settings: Settings) -> Latents:
    """Return the latents [N, latent_dim] of N points: encode pictures, and run the prior on the noise of seeds.

    Args:
        request: The request, whose deadline holds.
        engine: The engine of the model.
        points: The points, by the names of their fields, for errors.
        settings: The settings, which limit the size of pictures.

    Raises:
        InvalidInput: A point cannot be used.
        RaeServeError: The request cannot be met.
    """
    found: dict[str, npt.NDArray[np.float32]] = {}
    seeds = [field for field, point in points.items() if point.seed is not None]
    pictures = [(field, point.image) for field, point in points.items() if point.image is not None]
    for field, point in points.items():
        if point.latent is not None:
            found[field] = _given(engine, field, point.latent)
    if seeds:
        noise = np.stack([noise_of(engine, field, points[field]) for field in seeds])
        latents = await waiting.result(request, lambda deadline: engine.submit_latents(noise, deadline))
        found |= zip(seeds, latents, strict=True)
    if pictures:
        upload = Upload(
            [(f"{field}.image", uploads.decode_base64(f"{field}.image", text)) for field, text in pictures]
        )
        pixels = await waiting.in_thread(uploads.preprocess, upload, engine.manifest.image, settings)
        codes = await waiting.result(request, lambda deadline: engine.submit_encode(pixels, deadline))
        found |= zip((field for field, _ in pictures), codes, strict=True)
    return np.stack([found[field] for field in points])


def noise_of(engine: Engine, field: str, point: Point) -> npt.NDArray[np.float32]:
    """Return the noise [noise_dim] of a point. Raises InvalidInput, naming `field`, if the point is not a seed."""
    if point.seed is None:
        problem = 'must be a seed, because only a seed has noise; for other points set space to "latent"'
        raise InvalidInput(field, problem)
    row: npt.NDArray[np.float32] = engine.noise(
        1, seed=point.seed, offset=point.index, temperature=point.temperature
    )[0]
    return row


def _given(engine: Engine, field: str, latent: list[float]) -> npt.NDArray[np.float32]:
    dim = engine.manifest.latent.dim
    if len(latent) != dim:
        raise InvalidInput(f"{field}.latent", f"must be {dim} numbers, not {len(latent)}")
    row: npt.NDArray[np.float32] = arrays.finite_rows(f"{field}.latent", [latent], dim)[0]
    return row
