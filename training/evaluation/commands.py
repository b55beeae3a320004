"""What `rae-serve evaluate` and `rae-serve study` do."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rae_serve import files
from rae_serve.errors import InvalidInput
from training.evaluation import figures as measure
from training.evaluation import held_out
from training.evaluation import subject as subjects
from training.evaluation.features import extractors as features
from training.evaluation.features.extractors import Network
from training.evaluation.figures import AUTHORS, METRICS, Figures, Neighbours, Sets
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
    network: features.Name,
    weights: Path | None,
    device: str,
) -> None:
    """Measure a run or a bundle, and write its figures and its report to the folder `out`."""
    chosen = _metrics(metrics)
    if count < measure.FEWEST:
        raise InvalidInput("n", f"must be at least {measure.FEWEST}, not {count}")
    where = torch_device(device)
    subject = subjects.load(path, where)
    look = features.network(network, where, weights)
    images = held_out.load(subject, source)
    if (held := len(images.held_out)) < measure.FEWEST:
        raise InvalidInput("data", f"{held} images are held out of {images.source}; figures need {measure.FEWEST}")
    with resumable(), _Bars() as bars:
        these = measure.sets(subject, images, count, seed, bars.report)
        figures, neighbours = _measured(these, subject, look, chosen, where, bars)
        if AUTHORS in chosen:
            candidates = list(subjects.checkpoints(path, where)) or [subject]
            figures |= measure.authors_figures(candidates, images, look, count, seed)
    found = verdict.findings(figures, look.label, same_data=images.same)
    grade, sentence = verdict.summary(found)
    document = _document(subject, images, these, look, seed) | {
        "verdict": {"grade": grade, "summary": sentence, "findings": [finding._asdict() for finding in found]},
        "figures": _finite(figures),
    }
    folder = out or Path("evaluations") / subject.name
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / FIGURES, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    page = html(document, found, gallery(these, neighbours, subject, seed, images.split))
    files.write(folder / REPORT, page.encode())
    print(f"{sentence}\n{folder / REPORT}, {folder / FIGURES}")


def _metrics(given: str | None) -> tuple[str, ...]:
    if given is None:
        return METRICS
    chosen = tuple(word.strip() for word in given.split(","))
    for word in chosen:
        if word not in (*METRICS, AUTHORS):
            raise InvalidInput("--metrics", f"there is no {word!r}; there are {', '.join((*METRICS, AUTHORS))}")
    return chosen


def _measured(
    these: Sets, subject: Subject, look: Network, metrics: Sequence[str], where: torch.device, bars: _Bars
) -> tuple[Figures, Neighbours | None]:
    figures = measure.distribution_figures(these, look, metrics, bars.report)
    neighbours = None
    if "memorisation" in metrics:
        # On the small network whatever the other: it sees every training image, which would take Inception hours.
        small = look if look.label == "FD-cifar10" else features.network("cifar10", where)
        more, neighbours = measure.memorisation_figures(these, small, bars.report)
        figures |= more
    if "reconstruction" in metrics:
        figures |= measure.reconstruction_figures(these)
    if "latent" in metrics:
        figures |= measure.latent_figures(these, subject.trained_dim)
    return figures, neighbours


def _document(subject: Subject, images: Images, these: Sets, look: Network, seed: int) -> dict[str, Any]:
    """Everything that is needed to repeat the figures."""
    compared = len(these.held_out)
    return {
        "schema_version": 1,
        "subject": {"name": subject.name, **subject.facts},
        "data": {
            "source": images.source,
            "split": images.split,
            "held_out": len(images.held_out),
            "held_out_digest": features.digest(images.held_out),
            "training": len(images.train),
            "training_digest": features.digest(images.train),
            "trained_on_these": images.same,
            "compared": compared,
        },
        "protocol": {
            "generated": f"{compared} images: rows 0 to {compared - 1} of seed {seed}, clipped to uint8",
            "reconstructed": f"of the {compared} held-out images",
            "training": f"{compared} training images, evenly spaced: the limit of what any model can reach",
            "reference": f"{compared} held-out images, evenly spaced over all of them",
            "seed": seed,
            "memorisation": "on FD-cifar10's network, against all training images",
            "checkpoint": _checkpoint(subject, images),
        },
        "network": {"label": look.label, "description": look.description, "weights_sha256": look.digest},
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _checkpoint(subject: Subject, images: Images) -> str:
    if isinstance(subject, BundleSubject) and images.split == "validation":
        return "the latest of the run, unless it was exported with --best: that is chosen by these images"
    return "never chosen by these images"


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError

    found = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of the two ONNX Runtimes only one is there
            continue
    return found


def _finite(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Bars:
    """A bar for each piece of work; nothing in a pipe."""

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

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def report(self, doing: str, done: int, total: int) -> None:
        if doing not in self._tasks:
            self._tasks[doing] = self._progress.add_task(doing, total=total)
        self._progress.update(self._tasks[doing], completed=done)
