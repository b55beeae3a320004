"""The command `rae-serve evaluate`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from rae_serve import bundle as bundles
from rae_serve import files
from rae_serve.errors import InvalidInput, RaeServeError
from rae_serve.manifest import MANIFEST, Evaluation, Picture
from training.data.dataset import digest
from training.evaluation import held_out, subject
from training.evaluation.features.extractors import Extractor, ExtractorName, load_extractor
from training.evaluation.figures import (
    AUTHORS_PROTOCOL,
    METRICS,
    MIN_IMAGES,
    EvaluationData,
    authors_figures,
    collect,
    compute,
)
from training.evaluation.held_out import Images
from training.evaluation.report import page as report_page
from training.evaluation.report import verdict
from training.evaluation.report.gallery import gallery
from training.evaluation.subject import Subject
from training.machine import torch_device, versions
from training.progress import progress_bars, resumable

Keep = Literal["verdict", "pictures"]

FIGURES: Final = "evaluation.json"
REPORT: Final = "report.html"


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
    keep: Keep | None = None,
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
        keep: What to put into the bundle: its verdict, or the pictures of the report too; None puts nothing.

    Raises:
        InvalidInput: One of the arguments cannot be used.
        RaeServeError: The folder holds something else than an earlier evaluation, or cannot be written.
    """
    chosen = _chosen_metrics(metrics)
    if count < MIN_IMAGES:
        raise InvalidInput("n", f"must be at least {MIN_IMAGES}, not {count}")
    if keep and not (path / MANIFEST).exists():
        raise InvalidInput("keep", f"{path} is no bundle, which alone can keep a verdict; export the run first")
    where = torch_device(device)
    model = subject.load(path, where)
    folder = out or Path("evaluations") / model.name
    files.check_new_folder(folder, mark=FIGURES, used="fill")
    extractor = load_extractor(network, where, weights)
    images = held_out.load(model, source)
    for part, what in ((images.held_out, "held out of"), (images.train, "for training in")):
        if len(part) < MIN_IMAGES:
            problem = f"{len(part)} images are {what} {images.source}; an evaluation needs at least {MIN_IMAGES}"
            raise InvalidInput("data", problem)
    with resumable(), progress_bars() as report:
        data = collect(model, images, count, seed, report)
        figures, neighbours = compute(data, model.trained_dim, extractor, chosen, where, report)
        if AUTHORS_PROTOCOL in chosen:
            candidates = list(subject.checkpoints(path, where)) or [model]
            figures |= authors_figures(candidates, images, extractor, count, seed)
    findings = verdict.findings(figures, extractor.label, same_data=images.same)
    grade, sentence = verdict.summary(findings)
    document = _document(model, images, data, extractor, seed) | {
        "verdict": {"grade": grade, "summary": sentence, "findings": [finding._asdict() for finding in findings]},
        "figures": _finite(figures),
    }
    pictures = gallery(data, neighbours, model, seed, images.split)
    page = report_page.html(document, findings, pictures)
    with files.new_folder(folder, mark=FIGURES, used="fill") as draft:
        (draft / FIGURES).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (draft / REPORT).write_text(page, encoding="utf-8")
    if keep:
        _keep(path, document, pictures if keep == "pictures" else [])
    print(f"{sentence}\n{folder / REPORT}, {folder / FIGURES}")


def _keep(path: Path, document: Mapping[str, Any], pictures: Sequence[report_page.Picture]) -> None:
    """Put the verdict of `evaluation.json` and pictures into the bundle that was evaluated, in place of earlier ones.

    Raises:
        RaeServeError: The bundle was replaced in the meantime, or cannot be written.
    """
    bundle = bundles.Bundle.load(path)
    if bundle.manifest.digest != document["subject"]["digest"]:
        raise RaeServeError(f"{path} was replaced during the evaluation; evaluate it again")
    names = [bundles.name_by_content("picture", ".png", picture.png) for picture in pictures]
    shown = [
        Picture(title=picture.title, caption=picture.caption, file=name)
        for name, picture in zip(names, pictures, strict=True)
    ]
    data = document["data"]
    # A bundle is published: it says the name of the data, not where they are on this machine.
    name = bundle.manifest.training.data if data["trained_on_these"] else Path(data["source"]).name
    bundles.annotate(
        bundle,
        added={name: picture.png for name, picture in zip(names, pictures, strict=True)},
        dropped={picture.file for picture in bundle.manifest.pictures()},
        evaluation=Evaluation(
            **document["verdict"], data=f"{data['compared']:,} held-out images of {name}", pictures=shown
        ),
    )


def _chosen_metrics(given: str | None) -> tuple[str, ...]:
    if given is None:
        return METRICS
    known = (*METRICS, AUTHORS_PROTOCOL)
    chosen = tuple(word.strip() for word in given.split(","))
    for word in chosen:
        if word not in known:
            raise InvalidInput("--metrics", f"there is no metric {word!r}; there are {', '.join(known)}")
    return chosen


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
        "versions": versions(),
    }


def _checkpoint(model: Subject, images: Images) -> str:
    if model.facts["kind"] == "bundle" and images.split == "validation":
        return "the last of the run, or, after export --best, the one with the least error on these held-out images"
    return "not chosen by the held-out images"


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not have, such as NaN, by None."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
