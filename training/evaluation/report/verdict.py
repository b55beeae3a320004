"""The verdict: whether to ship a model. Each question compares a figure with a threshold.

The thresholds are rae-serve's own. They were set on good models of MNIST and on models that were broken on purpose,
and are relative to the figures of real images where that is possible. They say where to look, and prove nothing.
Where a comparison has no meaning, for example because all held-out images are equal, its value is NaN and the answer
is "doubtful".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from rae_serve.manifest import Grade
from training.evaluation.figures import Figures

_WORDS: Final[dict[Grade, str]] = {
    "bad": "Do not ship it. Failed:",
    "doubtful": "Look closer before you ship it. Doubtful:",
}
_NO_SCALE: Final = "All held-out images are equal for the feature network, so there is no scale to compare with."
_NO_LIMIT: Final = " Where even real training images have none, the figure says nothing."


class Finding(NamedTuple):
    """The answer to one question.

    Attributes:
        question: The question. "Yes" is good.
        grade: The answer.
        found: The figures behind the answer, as a sentence.
        threshold: Which figures are good and which are bad.
    """

    question: str
    grade: Grade
    found: str
    threshold: str


def findings(figures: Figures, label: str, *, same_data: bool) -> list[Finding]:
    """Answer every question that the figures allow.

    Args:
        figures: The figures of the model.
        label: The name of the Fréchet distance among the figures.
        same_data: Whether the training images are those that the model was trained on.
    """
    questions = {
        label: (_likeness, _prior),
        "precision-recall": (_precision, _recall),
        "rarest mode": (_modes,),
        "memorisation": (_copies,),
        "reconstruction": (_reconstruction,),
    }
    found = [ask(figures[name]) for name, asked in questions.items() if name in figures for ask in asked]
    if not same_data:
        found.append(
            Finding(
                "Was the model trained on this data set?",
                "doubtful",
                "Its training images were others: the digests differ. The held-out images may be of another kind.",
                "good if the digests are equal",
            )
        )
    return found


def summary(found: Sequence[Finding]) -> tuple[Grade, str]:
    """Return the worst grade, and the first sentence of the report."""
    if not found:
        return "doubtful", "No figure was computed that says whether to ship it."
    for grade, words in _WORDS.items():
        questions = [finding.question for finding in found if finding.grade == grade]
        if questions:
            return grade, f"{words} {' '.join(questions)}"
    return "good", "Fit to ship, by every figure that was computed. Look at the pictures, too."


def _likeness(figure: Mapping[str, Any]) -> Finding:
    generated, spread, limit = (figure[key] for key in ("generated", "spread", "training"))
    share = _ratio(generated, spread)
    return Finding(
        "Do generated images look like real ones?",
        _at_most(share, 0.1, 0.3),
        f"The Fréchet distance is {generated:.3g}, {share:.1%} of the scale: that of a model that always makes the "
        f"average image ({spread:.3g}). Real training images have {limit:.2g}."
        if spread
        else f"The Fréchet distance is {generated:.3g}. {_NO_SCALE}",
        "good up to 10% of the scale, bad above 30%",
    )


def _prior(figure: Mapping[str, Any]) -> Finding:
    generated, reconstructed, spread = (figure[key] for key in ("generated", "reconstructed", "spread"))
    excess = _ratio(max(generated - reconstructed, 0.0), spread)
    found = f"The Fréchet distance is {generated:.3g} for generated images, {reconstructed:.3g} for reconstructions. "
    return Finding(
        "Does the prior match the latents of images?",
        _at_most(excess, 0.05, 0.2),
        f"{found}The difference, {excess:.1%} of the scale, comes from the prior; the rest comes from the decoder."
        if spread
        else found + _NO_SCALE,
        "good up to 5% of the scale, bad above 20%",
    )


def _precision(figure: Mapping[str, Any]) -> Finding:
    value, limit = (figure[key]["precision"] for key in ("generated", "training"))
    return Finding(
        "Is each generated image believable?",
        _at_least(_ratio(value, limit), 0.6, 0.3),
        f"Precision {value:.2f}, where real training images have {limit:.2f}: the share of generated images that are "
        f"as near to a held-out image as held-out images are to each other.{'' if limit else _NO_LIMIT}",
        "good from 60% of the precision of real images, bad below 30%",
    )


def _recall(figure: Mapping[str, Any]) -> Finding:
    value, limit = (figure[key]["recall"] for key in ("generated", "training"))
    return Finding(
        "Are generated images as varied as real ones?",
        _at_least(_ratio(value, limit), 0.4, 0.2),
        f"Recall {value:.2f}, where real training images have {limit:.2f}: the share of held-out images that "
        "generated images come near to. It is low if kinds of images are missing or all images are too smooth."
        f"{'' if limit else _NO_LIMIT}",
        "good from 40% of the recall of real images, bad below 20%",
    )


def _modes(figure: Mapping[str, Any]) -> Finding:
    value, limit = (figure[key] for key in ("generated", "training"))
    return Finding(
        "Is every kind of image generated?",
        _at_least(value, 0.2, 0.1),
        f"The rarest kind is generated {value:.2f} times as often as it occurs among held-out images; among real "
        f"training images the rarest kind occurs {limit:.2f} times as often. Kinds are clusters of features.",
        "good from 0.2, bad below 0.1",
    )


def _copies(figure: Mapping[str, Any]) -> Finding:
    copies, closer = (figure[key] for key in ("copies", "closer"))
    return Finding(
        "Are generated images new, not copies of training images?",
        _at_most(copies, 0.05, 0.2),
        (
            "Some held-out images are training images themselves, so copies cannot be told from new images. "
            if math.isnan(copies)
            else f"{copies:.1%} of generated images are nearer to a training image than 99% of held-out images are; "
            "chance gives 1%. "
        )
        + f"In {closer:.0%} of pairs the generated image is nearer than the held-out one; new images are nearer in "
        "50%.",
        "good up to 5%, bad above 20%",
    )


def _reconstruction(figure: Mapping[str, Any]) -> Finding:
    explained, psnr, ssim = (figure[key] for key in ("explained", "psnr_db", "ssim"))
    likeness = f"PSNR {psnr:.1f} dB" if math.isfinite(psnr) else "some are exact"
    return Finding(
        "Do reconstructions look like their originals?",
        _at_least(explained, 0.8, 0.5),
        (
            "All held-out images are equal, so they have no variance to explain"
            if math.isnan(explained)
            else f"Reconstructions explain {explained:.0%} of the variance of held-out images"
        )
        + f" ({likeness}, SSIM {ssim:.2f}).",
        "good from 80%, bad below 50%",
    )


def _ratio(value: float, scale: float) -> float:
    return value / scale if scale else math.nan


def _at_most(value: float, good: float, bad: float) -> Grade:
    return "good" if value <= good else "bad" if value > bad else "doubtful"  # NaN is doubtful


def _at_least(value: float, good: float, bad: float) -> Grade:
    return "good" if value >= good else "bad" if value < bad else "doubtful"  # NaN is doubtful
