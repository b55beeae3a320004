"""The command `rae-serve evaluate`."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rae_serve import files
from rae_serve.errors import InvalidInput
from training.data.dataset import digest
from training.evaluation import held_out, subject
from training.evaluation.features.extractors import Extractor, ExtractorName, load_extractor
from training.evaluation.figures import (
    AUTHORS_PROTOCOL,
    METRICS,
    MIN_IMAGES,
    EvaluationData,
    Figures,
    Neighbours,
    authors_figures,
    collect,
    distribution_figures,
    latent_figures,
    memorisation_figures,
    reconstruction_figures,
)
from training.evaluation.held_out import Images
from training.evaluation.report import verdict
from training.evaluation.report.gallery import gallery
from training.evaluation.report.page import html
from training.evaluation.subject import BundleSubject, Subject
from training.machine import torch_device
from training.progress import resumable

FIGURES: Final = "evaluation.json"
REPORT: Final = "report.html"
_VERSIONS: Final = ("rae-serve", "numpy", "scipy", "scikit-learn", "torch", "onnxruntime-gpu", "onnxruntime")


def evaluate(
    path: Path,
    source: str | None,
    metrics: str | None,
    out: Path | None,
    count: int,
    seed: int,
    network: ExtractorName,
    weights: Path | None,
    device: str,
) -> None:
    """Evaluate a run or a bundle, and write evaluation.json and report.html.

    Args:
        path: The folder of the run or of the bundle.
        source: The data set of the training, as `--data` names it; None takes it from the model.
        metrics: Names of metrics, separated by commas; None computes METRICS.
        out: The folder to write; None means `evaluations/` and the name of the model.
        count: The most images of each kind.
        seed: The seed of the generated images.
        network: The name of the feature extractor.
        weights: The file of Inception's weights; None fetches it.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidInput: One of the arguments cannot be used.
        RaeServeError: The folder holds something else than an earlier evaluation, or cannot be written.
    """
    chosen = _chosen_metrics(metrics)
    if count < MIN_IMAGES:
        raise InvalidInput("n", f"must be at least {MIN_IMAGES}, not {count}")
    where = torch_device(device)
    model = subject.load(path, where)
    folder = out or Path("evaluations") / model.name
    files.check_new_folder(folder, mark=FIGURES, used="fill")
    extractor = load_extractor(network, where, weights)
    images = held_out.load(model, source)
    if (held := len(images.held_out)) < MIN_IMAGES:
        raise InvalidInput(
            "data", f"{held} images are held out of {images.source}; an evaluation needs at least {MIN_IMAGES}"
        )
    with resumable(), _ProgressBars() as bars:
        data = collect(model, images, count, seed, bars.report)
        figures, neighbours = _compute(data, model, extractor, chosen, where, bars)
        if AUTHORS_PROTOCOL in chosen:
            candidates: list[Subject] = list(subject.checkpoints(path, where)) or [model]
            figures |= authors_figures(candidates, images, extractor, count, seed)
    findings = verdict.findings(figures, extractor.label, same_data=images.same)
    grade, sentence = verdict.summary(findings)
    document = _document(model, images, data, extractor, seed) | {
        "verdict": {"grade": grade, "summary": sentence, "findings": [finding._asdict() for finding in findings]},
        "figures": _finite(figures),
    }
    page = html(document, findings, gallery(data, neighbours, model, seed, images.split))
    with files.new_folder(folder, mark=FIGURES, used="fill") as draft:
        (draft / FIGURES).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (draft / REPORT).write_text(page, encoding="utf-8")
    print(f"{sentence}\n{folder / REPORT}, {folder / FIGURES}")


def _chosen_metrics(given: str | None) -> tuple[str, ...]:
    if given is None:
        return METRICS
    chosen = tuple(word.strip() for word in given.split(","))
    for word in chosen:
        if word not in (*METRICS, AUTHORS_PROTOCOL):
            raise InvalidInput(
                "--metrics", f"there is no metric {word!r}; there are {', '.join((*METRICS, AUTHORS_PROTOCOL))}"
            )
    return chosen


def _compute(
    data: EvaluationData,
    model: Subject,
    extractor: Extractor,
    metrics: Sequence[str],
    device: torch.device,
    bars: _ProgressBars,
) -> tuple[Figures, Neighbours | None]:
    figures = distribution_figures(data, extractor, metrics, bars.report)
    neighbours = None
    if "memorisation" in metrics:
        # Always by the small network: features of all training images by Inception would take hours.
        small = extractor if extractor.label == "FD-cifar10" else load_extractor("cifar10", device)
        more, neighbours = memorisation_figures(data, small, bars.report)
        figures |= more
    if "reconstruction" in metrics:
        figures |= reconstruction_figures(data)
    if "latent" in metrics:
        figures |= latent_figures(data, model.trained_dim)
    return figures, neighbours


def _document(
    model: Subject, images: Images, data: EvaluationData, extractor: Extractor, seed: int
) -> dict[str, Any]:
    """Return what a reader needs to repeat the figures."""
    compared = len(data.held_out)
    return {
        "schema_version": 1,
        "subject": {"name": model.name, **model.facts},
        "data": {
            "source": images.source,
            "split": images.split,
            "held_out": len(images.held_out),
            "held_out_digest": digest(images.held_out),
            "training": len(images.train),
            "training_digest": digest(images.train),
            "trained_on_these": images.same,
            "compared": compared,
        },
        "protocol": {
            "generated": f"{compared} images: rows 0 to {compared - 1} of seed {seed}, clipped to uint8",
            "reconstructed": f"the {compared} held-out images after encoding and decoding",
            "training": f"{compared} training images, evenly spaced: the limit that no model can pass",
            "reference": f"{compared} held-out images, evenly spaced over all of them",
            "seed": seed,
            "memorisation": "by the features of FD-cifar10, against all training images",
            "checkpoint": _checkpoint(model, images),
        },
        "network": {
            "label": extractor.label,
            "description": extractor.description,
            "weights_sha256": extractor.digest,
        },
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _checkpoint(model: Subject, images: Images) -> str:
    if isinstance(model, BundleSubject) and images.split == "validation":
        return "the last of the run, or, after export --best, the one with the least error on these held-out images"
    return "not chosen by the held-out images"


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # only one of the two ONNX Runtimes is installed
            continue
    return found


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not have, such as NaN, by None."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _ProgressBars:
    """One progress bar per task on a terminal, and nothing elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _ProgressBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def report(self, task: str, done: int, total: int) -> None:
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total)
        self._progress.update(self._tasks[task], completed=done)
