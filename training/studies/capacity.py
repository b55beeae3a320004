"""Generation distance and active dimensions against the latent dimension m (Fig. 2 and 5 of the talk).

Without a mask, one must search for the best m. With the mask, any m above the dimension of the data should work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.figure import Figure

from training.studies.study import Study
from training.studies.twins import SYSTEMS, Twins

CAPACITIES: Final = {
    "synthetic-8": (4, 8, 12, 16, 32),
    "synthetic-16": (8, 16, 24, 32, 64),
    "mnist": (8, 16, 32, 48, 64),
    "digits": (4, 12, 24),
}


def run(study: Study) -> None:
    """Train the missing models, and write capacity.csv, .png and .md."""
    twins = Twins.of(study)
    rows = []
    for latent_dim in CAPACITIES[twins.data_name]:
        for system in SYSTEMS:
            rows.append(twins.trained(system, latent_dim).row())
            study.write_rows("capacity", rows)  # after each model, to show results early
    study.write_figure("capacity", _figure(rows, twins))
    study.write_page(
        "capacity",
        twins.data_name,
        true_dim=twins.true_dim,
        distance=twins.distance_name,
        rows=rows,
        best=min(_rows_of("AAE", rows), key=lambda row: float(row["generation_distance"])),
        largest=_rows_of("MaskAAE", rows)[-1],
    )


def _rows_of(system: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["system"] == system]


def _figure(rows: Sequence[Mapping[str, Any]], twins: Twins) -> Figure:
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for system in SYSTEMS.values():
        found = _rows_of(system, rows)
        capacities = [row["m"] for row in found]
        left.plot(capacities, [row["generation_distance"] for row in found], marker="o", label=system)
        right.plot(capacities, [row["active"] for row in found], marker="o", label=system)
    left.set(xlabel="m", ylabel=f"generated images: {twins.distance_name}", yscale="log")
    right.set(xlabel="m", ylabel="active dimensions")
    if twins.true_dim:
        right.axhline(twins.true_dim, color="grey", linestyle=":", label="of the data")
    left.legend()
    right.legend()
    return figure
