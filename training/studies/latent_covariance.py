"""Covariance and correlation of latents, without and with the mask (Fig. 7 and Table 2 of the talk)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from training.studies.study import Study
from training.studies.twins import SYSTEMS, Twin, Twins

# Table 2 of the talk: NAC of a WAE, NAC of MaskAAE, and active dimensions of MaskAAE.
PUBLISHED: Final = (
    ("Synthetic-8", 0.040, 0.030, 9),
    ("Synthetic-16", 0.031, 0.013, 16),
    ("MNIST", 0.027, 0.020, 13),
    ("Fashion-MNIST", 0.025, 0.019, 40),
    ("CIFAR-10", 0.017, 0.013, 120),
    ("CelebA", 0.046, 0.039, 77),
)


def run(study: Study) -> None:
    """Train the missing models, and write latent-covariance.csv, .png and .md."""
    twins = Twins.of(study)
    both = [twins.trained(system, twins.recipe_dim) for system in SYSTEMS]
    rows = [twin.row() for twin in both]
    study.write_rows("latent-covariance", rows)
    study.write_figure("latent-covariance", _figure(both, rows))
    study.write_page(
        "latent-covariance",
        twins.data_name,
        distance=twins.distance_name,
        images=len(twins.test_images),
        rows=rows,
        published=PUBLISHED,
    )


def _figure(both: Sequence[Twin], rows: Sequence[Mapping[str, Any]]) -> Figure:
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    for axes, twin, row in zip(figure.subplots(1, 2), both, rows, strict=True):
        covariance = np.cov(twin.latents * twin.mask, rowvar=False)
        drawn = axes.imshow(np.abs(covariance), vmin=0.0, vmax=1.0, cmap="viridis")
        title = f"{row['system']}: {row['active']} of {row['m']} active, NAC {row['nac']:.3f}"
        axes.set(title=title, xlabel="dimension", ylabel="dimension")
    figure.colorbar(drawn, ax=figure.axes, label="|covariance| of the masked latents", shrink=0.8)
    return figure
