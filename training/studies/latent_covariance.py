"""Covariances of the codes without and with the mask, and how correlated they are (the talk's Fig. 7 and Table 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from training.studies.study import Study
from training.studies.twins import SYSTEMS, Twin, Twins

# The talk's Table 2: NAC of a WAE and of MaskAAE, and the latter's active dimensions.
PUBLISHED: Final = (
    ("Synthetic-8", 0.040, 0.030, 9),
    ("Synthetic-16", 0.031, 0.013, 16),
    ("MNIST", 0.027, 0.020, 13),
    ("Fashion-MNIST", 0.025, 0.019, 40),
    ("CIFAR-10", 0.017, 0.013, 120),
    ("CelebA", 0.046, 0.039, 77),
)


def run(study: Study) -> None:
    """Train what is missing, and write latent-covariance.csv, .json, .png and .md."""
    twins = Twins.of(study)
    both = [twins.trained(system, twins.usual_dim) for system in SYSTEMS]
    rows = [twin.row() for twin in both]
    study.write_rows("latent-covariance", rows)
    study.write_figure("latent-covariance", _figure(both, rows))
    study.write_text("latent-covariance.md", _page(rows, twins))


def _figure(both: Sequence[Twin], rows: Sequence[Mapping[str, Any]]) -> Figure:
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    for axes, twin, row in zip(figure.subplots(1, 2), both, rows, strict=True):
        covariance = np.cov(twin.codes * twin.model.mask.detach().numpy(), rowvar=False)
        drawn = axes.imshow(np.abs(covariance), vmin=0.0, vmax=1.0, cmap="viridis")
        title = f"{row['system']}: {row['active']} of {row['m']} active, NAC {row['nac']:.3f}"
        axes.set(title=title, xlabel="dimension", ylabel="dimension")
    figure.colorbar(drawn, ax=figure.axes, label="|covariance| of the masked codes", shrink=0.8)
    return figure


def _page(rows: Sequence[Mapping[str, Any]], twins: Twins) -> str:
    aae, masked = rows
    ours = [
        f"| {row['system']} | {row['m']} | {row['active']} | {row['nac']:.4f} | {row['reconstruction_mse']:.5f} | "
        f"{row['generation_distance']:.4g} |"
        for row in rows
    ]
    theirs = [f"| {name} | {wae:.3f} | {mask:.3f} | {active} |" for name, wae, mask, active in PUBLISHED]
    codes = len(twins.test)
    return "\n".join(
        [
            "# Covariances of the codes, without and with the mask",
            "",
            f"On {twins.data_name} the codes of MaskAAE are {'less' if masked['nac'] < aae['nac'] else 'not less'} "
            "correlated over their active dimensions than those of the AAE with the same critic.",
            "",
            "![Covariances](latent-covariance.png)",
            "",
            f"| system | m | active | NAC | reconstruction, MSE | generation, {twins.distance_name} |",
            "|---|---|---|---|---|---|",
            *ours,
            "",
            f"NAC is the mean |correlation| of two active dimensions of the codes, here of {codes:,} test images; "
            f"of so many independent ones it is about {0.8 / codes**0.5:.4f}.",
            "",
            "The talk's Table 2, in which the unmasked system is a WAE:",
            "",
            "| data | WAE | MaskAAE | active |",
            "|---|---|---|---|",
            *theirs,
            "",
        ]
    )
