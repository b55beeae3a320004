"""The principal directions of latents, and the map: latents projected on the first two of these directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rae_serve import bundle as bundles
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.manifest import Latent, Map, Principal

Float64 = npt.NDArray[np.float64]

DIRECTIONS: Final = 8
POINTS: Final = 2000  # of images, on a map; more would hide each other
PRIOR_SEED: Final = 0  # the prior's points are rows 0, 1, … of this seed
PRIOR_ROWS: Final = 1000


def principal(latent: Latent, codes: Float64, prior: Float64) -> Principal:
    """Find the directions along which latents of images vary most.

    Args:
        latent: The latent space, whose mean is the origin and whose quantile levels are taken.
        codes: Latents of images [N, D].
        prior: Latents that the prior makes [M, D].
    """
    variances, vectors = np.linalg.eigh(np.cov(codes, rowvar=False, bias=True).reshape(codes.shape[1], -1))
    strongest = slice(None, -DIRECTIONS - 1, -1)
    directions = vectors.T[strongest]
    # The sign of a direction is arbitrary: make its largest entry positive.
    directions *= np.sign(np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1))
    directions = directions.round(6)
    shares = np.clip(variances[strongest] / (variances.sum() or 1.0), 0.0, 1.0)
    along = (prior - latent.mean) @ directions.T
    return Principal(
        directions=directions.tolist(),
        shares=shares.round(4).tolist(),
        prior_quantiles=np.quantile(along, latent.quantile_levels, axis=0).round(6).tolist(),
    )


def describe(latent: Latent, codes: Float64, prior: Float64) -> Latent:
    """Return the latent space with its principal directions and the prior's quantiles.

    Args:
        latent: The latent space; directions that it has already stay.
        codes: Latents of images [N, D].
        prior: Latents that the prior makes [M, D].
    """
    if latent.principal is not None:
        return latent
    quantiles = np.quantile(prior, latent.quantile_levels, axis=0).round(6).tolist()
    found = {"prior_quantiles": quantiles, "principal": principal(latent, codes, prior)}
    return latent.model_copy(update=found)


def draw(
    latent: Latent,
    codes: Float64,
    prior: Float64,
    *,
    names: Sequence[str] = (),
    has: npt.NDArray[np.bool_] | None = None,
    before: Map | None = None,
) -> Map:
    """Project latents on the first two principal directions.

    Args:
        latent: The latent space, with principal directions.
        codes: Latents of images [N, D], of which at most POINTS are taken, evenly spaced.
        prior: The prior's latents [M, D] of rows 0, 1, … of PRIOR_SEED.
        names: Names of A labels.
        has: Which labels each image has [N, A]; None if there are no labels.
        before: An earlier map, whose points without labels fill the new one up to POINTS.
    """
    rows = np.linspace(0, len(codes) - 1, min(len(codes), POINTS)).round().astype(int)
    images = _projected(codes[rows], latent)
    labels = [] if has is None else [np.flatnonzero(row).tolist() for row in has[rows]]
    if before is not None:
        own = before.labels or [[]] * len(before.images)
        images += [point for point, mine in zip(before.images, own, strict=True) if not mine][: POINTS - len(images)]
        labels += [[]] * (len(images) - len(labels))
    return Map(images=images, prior=_projected(prior, latent), names=list(names), labels=labels)


def annotate(
    engine: Engine, codes: Float64, names: Sequence[str], has: npt.NDArray[np.bool_], **facts: Any
) -> Bundle:
    """Put a map of labelled images into the bundle of an engine, with other fields of its manifest.

    Args:
        engine: The engine. Its bundle gets principal directions, those of the images, if it has none.
        codes: Latents of the images [N, D].
        names: Names of A labels.
        has: Which labels each image has [N, A].
        facts: The other fields, as for `bundle.annotate`.

    Raises:
        RaeServeError: The bundle's folder cannot be written.
    """
    bundle = engine.bundle
    prior = engine.latents(engine.noise(PRIOR_ROWS, seed=PRIOR_SEED)).astype(np.float64)
    latent = describe(bundle.manifest.latent, codes, prior)
    name, data = file_of(draw(latent, codes, prior, names=names, has=has, before=bundle.map()))
    dropped = [old for old in (bundle.manifest.map,) if old is not None and old != name]
    return bundles.annotate(bundle, added={name: data}, dropped=dropped, latent=latent, map=name, **facts)


def file_of(drawn: Map) -> tuple[str, bytes]:
    """Return the name and the bytes of a map's file."""
    data = drawn.model_dump_json().encode()
    return bundles.name_by_content("map", ".json", data), data


def _projected(latents: Float64, latent: Latent) -> list[tuple[float, float]]:
    assert latent.principal
    plane = np.zeros((2, latent.dim))  # latents of one dimension have one direction
    plane[: latent.dim] = latent.principal.directions[:2]
    # Three digits are as fine as a screen.
    return [(float(f"{x:.3g}"), float(f"{y:.3g}")) for x, y in (latents - latent.mean) @ plane.T]
