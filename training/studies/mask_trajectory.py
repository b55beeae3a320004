"""The mask against training steps (Fig. 6 of the talk): which dimensions close, when, and at what cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from training.journal import METRICS
from training.models.maskaae import ACTIVE
from training.runs import Run
from training.studies.study import Study
from training.studies.twins import Twins


def run(study: Study) -> None:
    """Train the missing model, and write mask-trajectory.csv, .png and .md."""
    twins = Twins.of(study)
    trained = twins.trained("maskaae", twins.recipe_dim)
    records = _records(trained.run)
    masked = [record for record in records if "mask" in record]
    study.write_rows("mask-trajectory", [_row(record) for record in masked])
    study.write_figure("mask-trajectory", _figure(records))
    last = masked[-1]
    study.write_page(
        "mask-trajectory",
        twins.data_name,
        true_dim=twins.true_dim,
        last=last,
        half_open=sum(ACTIVE < alpha < 1.0 - ACTIVE for alpha in last["mask"]),
        threshold=ACTIVE,
    )


def _records(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / METRICS).read_text(encoding="utf-8").splitlines()]


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    alphas = {f"alpha_{i}": alpha for i, alpha in enumerate(record["mask"])}
    return {"step": record["step"], "active": record["active"], **alphas}


def _figure(records: Sequence[Mapping[str, Any]]) -> Figure:
    masked = [record for record in records if "mask" in record]
    validated = [record for record in records if "validation/mse" in record]
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    steps = [record["step"] for record in masked]
    upper.plot(steps, [record["mask"] for record in masked], linewidth=0.8)
    upper.axhline(ACTIVE, color="grey", linestyle=":", linewidth=0.8)
    upper.set(ylabel="α of each dimension")
    middle.step(steps, [record["active"] for record in masked], where="post")
    middle.set(ylabel="active", ylim=(0, None))
    errors = [record["validation/mse"] for record in validated]
    lower.plot([record["step"] for record in validated], errors, marker=".")
    lower.set(xlabel="step", ylabel="held-out MSE", yscale="log")
    return figure
