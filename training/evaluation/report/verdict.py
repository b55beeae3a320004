"""Whether to ship it: each figure held against a threshold, in plain words.

The thresholds are ours. They were set on models of MNIST, good ones and ones that were broken on purpose, and are
relative to what real images give wherever they can be; they say where to look, and prove nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from training.evaluation.figures import Figures

Grade = Literal["good", "doubtful", "bad"]


class Finding(NamedTuple):
    """One question, its grade, what was found, and by which threshold."""

    question: str
    grade: Grade
    found: str
    threshold: str


def findings(figures: Figures, label: str, *, same_data: bool) -> list[Finding]:
    """What the figures say, one finding a question that they answer."""
    found = []
    if label in figures:
        found += [_likeness(figures, label), _prior(figures, label)]
    if "precision-recall" in figures:
        found += [_precision(figures), _recall(figures)]
    if "rarest mode" in figures:
        found.append(_modes(figures))
    if "memorisation" in figures:
        found.append(_copies(figures))
    if "reconstruction" in figures:
        found.append(_reconstruction(figures))
    if not same_data:
        found.append(
            Finding(
                "Are these the images that it was trained on?",
                "doubtful",
                "No: their digest is another. The held-out images may be of another kind than the model's.",
                "the digest of the training images is the model's",
            )
        )
    return found


def summary(found: Sequence[Finding]) -> tuple[Grade, str]:
    """The worst grade, and the sentence that a person reads first."""
    if not found:
        return "doubtful", "Nothing was measured that says whether to ship it."
    for grade, words in (("bad", "Do not ship it"), ("doubtful", "Look closer before you ship it")):
        questions = [finding.question for finding in found if finding.grade == grade]
        if questions:
            return grade, f"{words}. {' '.join(questions)} See below."  # type: ignore[return-value]
    return "good", "Fit to ship, by every figure that was measured. Look at the pictures all the same."


def _likeness(figures: Figures, label: str) -> Finding:
    generated, spread, limit = (figures[label][key] for key in ("generated", "spread", "training"))
    share = generated / spread
    return Finding(
        "Do its images look like real ones?",
        _at_most(share, 0.1, 0.3),
        f"{label} {generated:.3g}: {share:.1%} of what one average image for everything would score "
        f"({spread:.3g}); real training images score {limit:.2g}.",
        "good up to 10% of that, bad above 30%",
    )


def _prior(figures: Figures, label: str) -> Finding:
    generated, reconstructed, spread = (figures[label][key] for key in ("generated", "reconstructed", "spread"))
    excess = max(generated - reconstructed, 0.0) / spread
    return Finding(
        "Does the prior follow the codes?",
        _at_most(excess, 0.05, 0.2),
        f"Generated images score {generated:.3g}, reconstructions {reconstructed:.3g}: the prior costs {excess:.1%} "
        "of the same scale, the decoder the rest.",
        "good up to 5% of that scale, bad above 20%",
    )


def _precision(figures: Figures) -> Finding:
    value, limit = (figures["precision-recall"][key]["precision"] for key in ("generated", "training"))
    return Finding(
        "Is what it makes believable?",
        _at_least(value / limit if limit else 0.0, 0.6, 0.3),
        f"Precision {value:.2f}, where real training images have {limit:.2f}: the share of its images that are as "
        "near to a held-out image as those are to each other.",
        "good from 60% of what real images have, bad below 30%",
    )


def _recall(figures: Figures) -> Finding:
    value, limit = (figures["precision-recall"][key]["recall"] for key in ("generated", "training"))
    return Finding(
        "Does it make all that there is?",
        _at_least(value / limit if limit else 0.0, 0.4, 0.2),
        f"Recall {value:.2f}, where real training images have {limit:.2f}: the share of held-out images that its "
        "own come near. Low where kinds of images are missing, or all are too smooth.",
        "good from 40% of what real images have, bad below 20%",
    )


def _modes(figures: Figures) -> Finding:
    value, limit = (figures["rarest mode"][key] for key in ("generated", "training"))
    return Finding(
        "Is no kind of image missing?",
        _at_least(value, 0.2, 0.1),
        f"The rarest of the kinds of held-out images is made {value:.2f} times as often as it is real; among real "
        f"training images it is {limit:.2f} times. Kinds are clusters of features.",
        "good from 0.2, bad below 0.1",
    )


def _copies(figures: Figures) -> Finding:
    copies, closer = (figures["memorisation"][key] for key in ("copies", "closer"))
    return Finding(
        "Does it invent, and not repeat its training images?",
        _at_most(copies, 0.05, 0.2),
        f"{copies:.1%} of its images are nearer to a training image than 99% of the held-out ones are; by chance it "
        f"is 1%. Nearer than a held-out image in {closer:.0%} of pairs, where new images are in 50%.",
        "good up to 5%, bad above 20%",
    )


def _reconstruction(figures: Figures) -> Finding:
    explained, psnr, ssim = (figures["reconstruction"][key] for key in ("explained", "psnr_db", "ssim"))
    return Finding(
        "Does it keep the images that it is given?",
        _at_least(explained, 0.8, 0.5),
        f"{explained:.0%} of what distinguishes held-out images is kept (PSNR {psnr:.1f} dB, SSIM {ssim:.2f}).",
        "good from 80%, bad below 50%",
    )


def _at_most(value: float, good: float, bad: float) -> Grade:
    return "good" if value <= good else "doubtful" if value <= bad else "bad"


def _at_least(value: float, good: float, bad: float) -> Grade:
    return "good" if value >= good else "doubtful" if value >= bad else "bad"
