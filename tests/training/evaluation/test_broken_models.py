"""A broken model must look broken: each defect, in the figure that is meant to catch it, and in the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from training.data import sources
from training.evaluation import figures as measure
from training.evaluation.figures import Figures, Sets
from training.evaluation.report import verdict

pytestmark = pytest.mark.timeout(300)  # features of thousands of images, on a machine that may be busy
RNG = np.random.default_rng(0)
JUDGED = ("frechet", "precision-recall", "modes")


class Real(NamedTuple):
    """Real images with their classes, in three parts that do not overlap: `model` plays a perfect model."""

    train: np.ndarray
    held_out: np.ndarray
    model: np.ndarray
    model_classes: np.ndarray


def digits() -> Real:
    from sklearn.datasets import load_digits

    images = np.concatenate([sources.read("digits", "digits", split)[1] for split in ("train", "test")])
    order = np.random.default_rng(0).permutation(len(images))
    return parts(images[order], load_digits().target[order], 900, 440)


def mnist(root: Path) -> Real:
    from torchvision import datasets

    data = datasets.MNIST(root, train=True)
    return parts(data.data.numpy()[:4000, ..., None], data.targets.numpy()[:4000], 2000, 1000)


def parts(images: np.ndarray, classes: np.ndarray, train: int, held_out: int) -> Real:
    end = train + held_out
    return Real(images[:train], images[train:end], images[end : end + held_out], classes[end : end + held_out])


@pytest.fixture(scope="module", params=["digits", pytest.param("mnist", marks=pytest.mark.mnist)])
def real(request) -> Real:
    return digits() if request.param == "digits" else mnist(request.config.rootpath / ".." / "shared" / "data")


@pytest.fixture(scope="module")
def judge(real, look):
    """The figures of a model that makes these images, by these metrics, and the grade of every question."""

    def judged(generated: np.ndarray, metrics: tuple[str, ...] = JUDGED) -> tuple[Figures, dict[str, str]]:
        n = len(generated)
        codes = np.zeros((n, 1), np.float32)
        held_out, sample = real.held_out[:n], real.train[:n]
        these = Sets(held_out, codes, held_out, codes, generated, real.train, sample)
        quiet = lambda *_: None  # noqa: E731
        figures = measure.distribution_figures(these, look, metrics, quiet)
        figures |= measure.memorisation_figures(these, look, quiet)[0]
        figures |= measure.reconstruction_figures(these)
        found = verdict.findings(figures, look.label, same_data=True)
        return figures, {finding.question: finding.grade for finding in found}

    return judged


@pytest.fixture(scope="module")
def perfect(real, judge):
    return judge(real.model, (*JUDGED, "prd"))[0]


def test_a_perfect_model_looks_perfect(real, judge, look):
    figures, grades = judge(real.model)
    assert set(grades.values()) == {"good"}
    assert figures[look.label]["generated"] < 3 * figures[look.label]["training"]


def test_noise_is_far_from_everything(real, judge, perfect, look):
    generated = RNG.integers(0, 256, real.model.shape, dtype=np.uint8)
    figures, grades = judge(generated, (*JUDGED, "prd"))
    assert figures[look.label]["generated"] > 20 * perfect[look.label]["generated"]
    assert figures["precision-recall"]["generated"]["precision"] < 0.05
    assert figures["prd"]["generated"]["f_1_8"] < 0.2
    assert grades["Do its images look like real ones?"] == "bad"
    assert grades["Is what it makes believable?"] == "bad"


def test_blur_costs_distance_and_recall(real, judge, perfect, look):
    sigma = real.model.shape[1] / 16
    figures, grades = judge(gaussian_filter(real.model, (0, sigma, sigma, 0)), (*JUDGED, "kernel"))
    assert figures[look.label]["generated"] > 10 * perfect[look.label]["generated"]
    assert figures[look.label.replace("FD", "KD")]["generated"]["mean"] > 0.02
    assert figures["precision-recall"]["generated"]["recall"] < perfect["precision-recall"]["generated"]["recall"] / 2
    assert grades["Do its images look like real ones?"] == "bad"
    assert grades["Does it make all that there is?"] == "bad"


def test_a_missing_mode_costs_recall_and_its_own_share_but_no_precision(real, judge, perfect):
    kept = real.model[(real.model_classes != 0) & (real.model_classes != 1)]
    figures, grades = judge(kept, (*JUDGED, "prd"))
    assert figures["rarest mode"]["generated"] < perfect["rarest mode"]["generated"] / 3
    assert figures["prd"]["generated"]["f_8"] < perfect["prd"]["generated"]["f_8"] - 0.05
    before, after = (figure["precision-recall"]["generated"] for figure in (perfect, figures))
    assert after["recall"] < before["recall"] - 0.1
    assert after["precision"] > before["precision"] - 0.05
    assert grades["Is no kind of image missing?"] != "good"


def test_copies_of_training_images_are_seen_by_nothing_but_the_memorisation_check(real, judge, perfect, look):
    figures, grades = judge(real.train[-len(real.model) :])
    assert figures["memorisation"]["copies"] > 0.95
    assert figures["memorisation"]["closer"] > 0.95
    assert perfect["memorisation"]["copies"] < 0.06
    assert figures[look.label]["generated"] < 3 * perfect[look.label]["generated"]
    assert {question for question, grade in grades.items() if grade != "good"} == {
        "Does it invent, and not repeat its training images?"
    }


def test_lossy_copies_are_seen_too(real, judge):
    copies = real.train[: len(real.model)].astype(int)
    noisy = (copies + RNG.integers(-6, 7, copies.shape)).clip(0, 255).astype(np.uint8)
    _, grades = judge(noisy)
    assert grades["Does it invent, and not repeat its training images?"] == "bad"


def test_a_model_that_copies_one_image_in_ten_is_doubted(real, judge):
    generated = real.model.copy()
    tenth = len(generated) // 10
    generated[:tenth] = real.train[:tenth]
    figures, grades = judge(generated)
    assert 0.08 < figures["memorisation"]["copies"] < 0.16
    assert grades["Does it invent, and not repeat its training images?"] == "doubtful"


def test_blurred_reconstructions_lose_in_every_figure_of_reconstruction(real):
    codes = np.zeros((len(real.held_out), 1), np.float32)

    def figures(reconstructed: np.ndarray) -> dict[str, float]:
        these = Sets(real.held_out, codes, reconstructed, codes, reconstructed, real.train, real.train)
        return measure.reconstruction_figures(these)["reconstruction"]

    sharp, blurred = (figures(gaussian_filter(real.held_out, (0, sigma, sigma, 0))) for sigma in (0.4, 1.2))
    assert blurred["mse"] > sharp["mse"]
    for better in ("psnr_db", "ssim", "explained"):
        assert blurred[better] < sharp[better]
