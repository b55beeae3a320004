"""The mask's values against steps (the talk's Fig. 6): which dimensions close, when, and what that costs."""

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
    """Train what is missing, and write mask-trajectory.csv, .json, .png and .md."""
    twins = Twins.of(study)
    trained = twins.trained("maskaae", twins.usual_dim)
    records = _records(trained.run)
    study.write_rows("mask-trajectory", [_row(record) for record in records if "mask" in record])
    study.write_figure("mask-trajectory", _figure(records))
    study.write_text("mask-trajectory.md", _page(records, twins))


def _records(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / METRICS).read_text(encoding="utf-8").splitlines()]


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    alphas = {f"alpha_{i}": alpha for i, alpha in enumerate(record["mask"])}
    return {"step": record["step"], "active": record["active"], **alphas}


def _figure(records: Sequence[Mapping[str, Any]]) -> Figure:
    masked = [record for record in records if "mask" in record]
    judged = [record for record in records if "validation/mse" in record]
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    steps = [record["step"] for record in masked]
    upper.plot(steps, [record["mask"] for record in masked], linewidth=0.8)
    upper.axhline(ACTIVE, color="grey", linestyle=":", linewidth=0.8)
    upper.set(ylabel="α of each dimension")
    middle.step(steps, [record["active"] for record in masked], where="post")
    middle.set(ylabel="m_A", ylim=(0, None))
    lower.plot([record["step"] for record in judged], [record["validation/mse"] for record in judged], marker=".")
    lower.set(xlabel="step", ylabel="held-out MSE", yscale="log")
    return figure


def _page(records: Sequence[Mapping[str, Any]], twins: Twins) -> str:
    first, last = (next(r for r in order if "mask" in r) for order in (records, records[::-1]))
    between = sum(ACTIVE < alpha < 1.0 - ACTIVE for alpha in last["mask"])
    known = f", where the data have {twins.true_dim}" if twins.true_dim else ""
    return "\n".join(
        [
            "# The mask against steps",
            "",
            f"MaskAAE on {twins.data_name}: of {len(first['mask'])} dimensions {last['active']} are active after "
            f"{last['step']:,} steps{known}; {between} are neither open nor closed, within {ACTIVE:g}.",
            "",
            "![α of each dimension, their number, and the error on held-out images](mask-trajectory.png)",
            "",
            f"A dimension is active where its α is at least {ACTIVE:g} (dotted). The mask stands still while the "
            "auto-encoder warms up. The talk's Fig. 6 shows α alone.",
            "",
        ]
    )
