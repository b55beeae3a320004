"""A broken model must look broken: each defect shows in the figure that is meant to catch it, and in the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from training.data import sources
from training.evaluation.figures import (
    EvaluationData,
    Figures,
    distribution_figures,
    memorisation_figures,
    reconstruction_figures,
)
from training.evaluation.report import verdict

pytestmark = pytest.mark.timeout(300)  # features of thousands of images, on a machine that may be busy
RNG = np.random.default_rng(0)
METRICS = ("frechet", "precision-recall", "modes")


class Real(NamedTuple):
    """Real images in three parts that do not overlap. `model` plays the images of a perfect model."""

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
def evaluate(real, extractor):
    """A function that returns the figures of a model with these images, and the grade of every question."""

    def evaluated(generated: np.ndarray, metrics: tuple[str, ...] = METRICS) -> tuple[Figures, dict[str, str]]:
        n = len(generated)
        codes = np.zeros((n, 1), np.float32)
        held_out, sample = real.held_out[:n], real.train[:n]
        data = EvaluationData(held_out, codes, held_out, codes, generated, real.train, sample)
        figures = distribution_figures(data, extractor, metrics)
        figures |= memorisation_figures(data, extractor)[0]
        figures |= reconstruction_figures(data)
        found = verdict.findings(figures, extractor.label, same_data=True)
        return figures, {finding.question: finding.grade for finding in found}

    return evaluated


@pytest.fixture(scope="module")
def perfect(real, evaluate):
    return evaluate(real.model, (*METRICS, "prd"))[0]


def test_a_perfect_model_looks_perfect(real, evaluate, extractor):
    figures, grades = evaluate(real.model)
    assert set(grades.values()) == {"good"}
    assert figures[extractor.label]["generated"] < 3 * figures[extractor.label]["training"]


def test_noise_is_far_from_everything(real, evaluate, perfect, extractor):
    generated = RNG.integers(0, 256, real.model.shape, dtype=np.uint8)
    figures, grades = evaluate(generated, (*METRICS, "prd"))
    assert figures[extractor.label]["generated"] > 20 * perfect[extractor.label]["generated"]
    assert figures["precision-recall"]["generated"]["precision"] < 0.05
    assert figures["prd"]["generated"]["f_1_8"] < 0.2
    assert grades["Do generated images look like real ones?"] == "bad"
    assert grades["Is each generated image believable?"] == "bad"


def test_blur_costs_distance_and_recall(real, evaluate, perfect, extractor):
    sigma = real.model.shape[1] / 16
    figures, grades = evaluate(gaussian_filter(real.model, (0, sigma, sigma, 0)), (*METRICS, "kernel"))
    assert figures[extractor.label]["generated"] > 10 * perfect[extractor.label]["generated"]
    assert figures[extractor.label.replace("FD", "KD")]["generated"]["mean"] > 0.02
    assert figures["precision-recall"]["generated"]["recall"] < perfect["precision-recall"]["generated"]["recall"] / 2
    assert grades["Do generated images look like real ones?"] == "bad"
    assert grades["Are generated images as varied as real ones?"] == "bad"


def test_a_missing_mode_costs_recall_and_its_own_share_but_no_precision(real, evaluate, perfect):
    kept = real.model[(real.model_classes != 0) & (real.model_classes != 1)]
    figures, grades = evaluate(kept, (*METRICS, "prd"))
    assert figures["rarest mode"]["generated"] < perfect["rarest mode"]["generated"] / 3
    assert figures["prd"]["generated"]["f_8"] < perfect["prd"]["generated"]["f_8"] - 0.05
    before, after = (figure["precision-recall"]["generated"] for figure in (perfect, figures))
    assert after["recall"] < before["recall"] - 0.1
    assert after["precision"] > before["precision"] - 0.05
    assert grades["Is every kind of image generated?"] != "good"


def test_copies_of_training_images_are_seen_by_nothing_but_the_memorisation_check(real, evaluate, perfect, extractor):
    figures, grades = evaluate(real.train[-len(real.model) :])
    assert figures["memorisation"]["copies"] > 0.95
    assert figures["memorisation"]["closer"] > 0.95
    assert perfect["memorisation"]["copies"] < 0.06
    assert figures[extractor.label]["generated"] < 3 * perfect[extractor.label]["generated"]
    assert {question for question, grade in grades.items() if grade != "good"} == {
        "Are generated images new, not copies of training images?"
    }


def test_lossy_copies_are_seen_too(real, evaluate):
    copies = real.train[: len(real.model)].astype(int)
    noisy = (copies + RNG.integers(-6, 7, copies.shape)).clip(0, 255).astype(np.uint8)
    _, grades = evaluate(noisy)
    assert grades["Are generated images new, not copies of training images?"] == "bad"


def test_a_model_that_copies_one_image_in_ten_is_doubted(real, evaluate):
    generated = real.model.copy()
    tenth = len(generated) // 10
    generated[:tenth] = real.train[:tenth]
    figures, grades = evaluate(generated)
    assert 0.08 < figures["memorisation"]["copies"] < 0.16
    assert grades["Are generated images new, not copies of training images?"] == "doubtful"


def test_blurred_reconstructions_lose_in_every_figure_of_reconstruction(real):
    codes = np.zeros((len(real.held_out), 1), np.float32)

    def figures(reconstructed: np.ndarray) -> dict[str, float]:
        data = EvaluationData(real.held_out, codes, reconstructed, codes, reconstructed, real.train, real.train)
        return reconstruction_figures(data)["reconstruction"]

    sharp, blurred = (figures(gaussian_filter(real.held_out, (0, sigma, sigma, 0))) for sigma in (0.4, 1.2))
    assert blurred["mse"] > sharp["mse"]
    for better in ("psnr_db", "ssim", "explained"):
        assert blurred[better] < sharp[better]
