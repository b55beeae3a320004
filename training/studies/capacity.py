"""Generation distance and active dimensions against the capacity m of the latent space (the talk's Fig. 2 and 5).

Without a mask there is a best m, which must be searched for; with it, any m above the data's dimension should do.
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
    """Train what is missing, and write capacity.csv, .json, .png and .md."""
    twins = Twins.of(study)
    rows = []
    for latent_dim in CAPACITIES[twins.data_name]:
        for system in SYSTEMS:
            rows.append(twins.trained(system, latent_dim).row())
            study.write_rows("capacity", rows)  # after each: what is there may be looked at
    study.write_figure("capacity", _figure(rows, twins))
    study.write_text("capacity.md", _page(rows, twins))


def _of(system: str, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["system"] == system]


def _figure(rows: Sequence[Mapping[str, Any]], twins: Twins) -> Figure:
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for system in SYSTEMS.values():
        found = _of(system, rows)
        capacities = [row["m"] for row in found]
        left.plot(capacities, [row["generation_distance"] for row in found], marker="o", label=system)
        right.plot(capacities, [row["active"] for row in found], marker="o", label=system)
    left.set(xlabel="m", ylabel=f"generations: {twins.distance_name}", yscale="log")
    right.set(xlabel="m", ylabel="active dimensions")
    if twins.true_dim:
        right.axhline(twins.true_dim, color="grey", linestyle=":", label="of the data")
    left.legend()
    right.legend()
    return figure


def _page(rows: Sequence[Mapping[str, Any]], twins: Twins) -> str:
    best = min(_of("AAE", rows), key=lambda row: row["generation_distance"])
    largest = _of("MaskAAE", rows)[-1]
    table = [
        f"| {row['system']} | {row['m']} | {row['active']} | {row['generation_distance']:.4g} | "
        f"{row['reconstruction_mse']:.5f} | {row['nac']:.4f} |"
        for row in rows
    ]
    known = f" The data have {twins.true_dim}." if twins.true_dim else ""
    return "\n".join(
        [
            "# Capacity of the latent space, without and with the mask",
            "",
            f"On {twins.data_name} the best AAE is that of m = {best['m']}. MaskAAE from the largest, m = "
            f"{largest['m']}, keeps {largest['active']} dimensions and generates at "
            f"{largest['generation_distance'] / best['generation_distance']:.2f} times that AAE's distance.{known}",
            "",
            "![Distance and active dimensions by capacity](capacity.png)",
            "",
            f"| system | m | active | generation, {twins.distance_name} | reconstruction, MSE | NAC |",
            "|---|---|---|---|---|---|",
            *table,
            "",
            "One run each, by the recipes as they stand but for m. The talk's figures show the same as curves, "
            "without numbers; its unmasked system is a WAE, ours the AAE of MaskAAE's own critic.",
            "",
        ]
    )
