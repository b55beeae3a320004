"""The command as users run it, on a run and on its bundle."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from rae_serve.bundle import Bundle
from rae_serve.errors import InvalidInput
from training import recipe as recipes
from training.data.dataset import Dataset
from training.evaluation import commands, held_out, subject
from training.evaluation.features.extractors import Cifar10Extractor
from training.evaluation.figures import collect, distribution_figures, stretch
from training.evaluation.metrics import prd
from training.evaluation.metrics.distances import spread
from training.evaluation.report.page import Picture, html
from training.evaluation.report.verdict import Finding
from training.runs import Run, load_data
from training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def command(command):
    """A function that runs `rae-serve evaluate` with these words."""
    return lambda *words: command("evaluate", *words)


@pytest.fixture(scope="module")
def alone(bundle, tmp_path_factory) -> Path:
    """The bundle where its run is not."""
    return Path(shutil.copytree(bundle.path, tmp_path_factory.mktemp("alone") / "digits"))


class Sources(HTMLParser):
    """Collects every address in a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for key, value in attributes if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_bundle_without_its_run(command, alone, tmp_path):
    out = tmp_path / "evaluation"
    status, printed, err = command(alone, "--data", "digits", "--out", out)
    assert (status, err) == (0, "")
    document = json.loads((out / "evaluation.json").read_text())
    assert document["verdict"]["summary"] in printed
    assert document["subject"]["kind"] == "bundle"
    assert document["data"] | {"source": "digits", "split": "test", "compared": 297} == document["data"]
    assert document["data"]["trained_on_these"] is True
    assert len(document["network"]["weights_sha256"]) == 64
    assert {"FD-cifar10", "KD-cifar10", "prd", "memorisation", "reconstruction", "latent"} < set(document["figures"])
    page = Sources((out / "report.html").read_text())
    assert len(page.found) >= 9
    assert all(source.startswith("data:image/png;base64,") for source in page.found)
    assert page.text.index(document["verdict"]["summary"]) < page.text.index("Generated images")
    for finding in document["verdict"]["findings"]:
        assert finding["question"] in page.text


def test_a_page_shows_names_as_text():
    name = "<script>alert('&')</script>"
    training = {"steps": 1, "images": 2, "data": name}
    document = {
        "subject": {"name": name, "kind": "run", "model": "flexae", "recipe": name, "training": training},
        "data": {"split": "test", "compared": 3},
        "verdict": {"grade": "good", "summary": name},
        "figures": {name: {name: None}},
    }
    page = html(document, [Finding(name, "good", name, name)], [Picture(name, name, b"")])
    assert "<script>" not in page
    assert Sources(page).text.count(name) >= 10


def test_an_untrained_model_is_not_to_be_shipped(command, alone, tmp_path):
    _, printed, _ = command(alone, "--metrics", "frechet,precision-recall", "--out", tmp_path / "out")
    assert printed.startswith("Do not ship it. Failed: Do generated images look like real ones?")


def test_the_figures_of_a_run_and_of_its_bundle_agree(run, bundle, extractor):
    subjects = subject.of_run(run, CPU), subject.of_bundle(bundle, "cpu")
    figures = []
    made = []
    for one in subjects:
        images = held_out.load(one, None)
        data = collect(one, images, 10_000, 3)
        made.append(data)
        figures.append(distribution_figures(data, extractor, ["frechet", "precision-recall"]))
    for kind in ("generated", "reconstructed"):
        difference = np.abs(getattr(made[0], kind).astype(int) - getattr(made[1], kind))
        assert difference.max() <= bundle.manifest.tolerance.grey_levels
    for kind in ("generated", "reconstructed"):
        values = [figure["FD-cifar10"][kind] for figure in figures]
        assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_the_same_command_gives_the_same_figures(command, alone, tmp_path):
    documents = []
    for name in ("one", "other"):
        command(alone, "--metrics", "frechet,prd,modes", "--n", 100, "--seed", 5, "--out", tmp_path / name)
        documents.append((tmp_path / name / "evaluation.json").read_text())
    assert documents[0] == documents[1]
    assert json.loads(documents[0])["data"]["compared"] == 100


def test_the_authors_protocol_goes_by_its_own_name(command, run, tmp_path):
    command(run.path, "--metrics", "authors-protocol", "--n", 100, "--out", tmp_path / "out")
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text())["figures"]
    (name,) = figures
    assert name == "FD-cifar10, authors' protocol"
    assert figures[name]["checkpoints"] == len({path.stem for path in (run.path / "checkpoints").glob("step-*")})
    assert figures[name]["chosen_on"] == "test"


def test_stretching_reaches_both_ends_and_leaves_flat_images():
    images = np.array([[[[50]], [[100]]], [[[7]], [[7]]]], np.uint8)
    assert stretch(images).ravel().tolist() == [0, 255, 7, 7]


def trained_on(images: np.ndarray, folder: Path, *settings: str) -> tuple[Run, Dataset]:
    """Train for two steps, with a tenth of the images held out."""
    np.save(folder / "mine.npy", images)
    small = ["steps=2", "sample_every=1", "filters=4", "hidden=8", "validation=0.1"]
    recipe = recipes.load("flexae-digits", [*small, *settings])
    dataset = load_data(recipe, str(folder / "mine.npy"))
    run = Run.create(folder / "run", recipe, dataset, str(folder / "mine.npy"))
    Trainer(recipe, dataset, run.path, CPU).fit()
    return run, dataset


def test_few_held_out_images_answer_fewer_questions_and_too_few_are_refused(command, fails, tmp_path, digits):
    (tmp_path / "few").mkdir()
    run, _ = trained_on(digits("train")[:400], tmp_path)
    command(run.path, "--metrics", "prd,modes", "--out", tmp_path / "out")
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["data"]["compared"] == 40
    assert "prd" in document["figures"]
    assert "rarest mode" not in document["figures"]
    run, _ = trained_on(digits("train")[:190], tmp_path / "few")
    fails([run.path], "data: 19 images are held out", "at least 20")
    (tmp_path / "train").mkdir()
    run, _ = trained_on(digits("train")[:80], tmp_path / "train", "validation=0.8", "batch_size=8")
    fails([run.path], "data: 16 images are for training", "at least 20")


class Stub:
    """A model that encodes every image to zeros, and decodes latents to these images, in turn."""

    name, source, data_name, preprocessing = "stub", "stub", "stub", None
    data_digest, training_images, trained_dim = "", 0, 2
    facts: ClassVar = {"model": "m", "recipe": "r", "kind": "run", "training": {"steps": 1, "images": 1, "data": "d"}}

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def encode(self, images: np.ndarray) -> np.ndarray:
        return self.latents(len(images), 0)

    def latents(self, count: int, seed: int) -> np.ndarray:
        return np.zeros((count, self.trained_dim), np.float32)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        return self.images[np.arange(len(latents)) % len(self.images)]


PICTURES = np.random.default_rng(1).integers(0, 256, (202, 8, 8, 1), np.uint8)
VARIED, OTHERS, EQUAL, EQUAL_OTHERS = PICTURES[:100], PICTURES[100:200], PICTURES[[200] * 100], PICTURES[[201] * 100]
# A few words of the sentence that says why a question has no answer.
SCALE, VARIANCE = "no scale", "no variance"
LIMIT, COPIES = "even real training images have none", "training images themselves"
NO_SPREAD = [SCALE, SCALE, VARIANCE]


@pytest.mark.parametrize(
    ("generated", "train", "held_out_images", "said"),
    [
        pytest.param(EQUAL, EQUAL, EQUAL, [*NO_SPREAD, COPIES], id="one picture everywhere"),
        pytest.param(EQUAL_OTHERS, EQUAL, EQUAL, [*NO_SPREAD, COPIES], id="one picture, but the model makes another"),
        pytest.param(VARIED, VARIED, EQUAL, NO_SPREAD, id="held-out images are equal"),
        pytest.param(OTHERS, EQUAL * 0, VARIED, [LIMIT, LIMIT], id="training images are equal"),
        pytest.param(VARIED, VARIED, VARIED, [COPIES], id="training and held-out images are the same"),
        pytest.param(EQUAL, PICTURES[[0, 1] * 50], PICTURES[[1, 0] * 50], [COPIES], id="two pictures"),
        pytest.param(EQUAL, VARIED, OTHERS, [], id="a collapsed model"),
    ],
)
def test_what_cannot_be_computed_is_said_and_the_rest_is_written(
    command, tmp_path, monkeypatch, generated, train, held_out_images, said
):
    monkeypatch.setattr(prd, "RUNS", 2)  # most of the time goes into its clusterings
    monkeypatch.setattr(subject, "load", lambda *_: Stub(generated))
    monkeypatch.setattr(held_out, "load", lambda *_: held_out.Images("stub", train, held_out_images, "test", True))
    assert command("stub", "--out", tmp_path / "out")[::2] == (0, "")
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    figures = document["figures"]
    assert (figures["FD-cifar10"]["spread"] == 0) == (SCALE in said)
    assert (figures["memorisation"]["copies"] is None) == (COPIES in said)
    assert (figures["reconstruction"]["explained"] is None) == (VARIANCE in said)
    assert figures["latent"] == {"dimensions": 2, "active": 0, "nac_codes": None, "nac_prior": None}
    assert {"KD-cifar10", "prd", "rarest mode", "precision-recall"} < set(figures)
    found = document["verdict"]["findings"]
    assert len(found) == 7
    unanswered = [(f["grade"], words) for words in {*said} for f in found if words in f["found"]]
    assert sorted(unanswered) == sorted(("doubtful", words) for words in said)
    page = Sources((tmp_path / "out" / "report.html").read_text()).text
    assert "nac_codes" in page
    assert "nan" not in page.lower()


def test_features_that_differ_by_rounding_have_no_spread():
    features = np.random.default_rng(0).random((1, 256), np.float32).repeat(50, axis=0)
    features[25:] *= np.float32(1 + 1e-6)
    assert spread(features) == 0.0
    features[0, 0] += 0.1
    assert spread(features) == pytest.approx(0.1**2 / 50, rel=0.01)


def test_without_a_test_split_it_is_what_training_held_out(tmp_path, digits):
    run, dataset = trained_on(digits("train")[:400], tmp_path)
    one = subject.load(run.path, CPU)
    images = held_out.load(one, None)
    assert (images.split, images.same) == ("validation", True)
    assert (images.held_out == dataset.images[dataset.validation]).all()
    assert (images.train == dataset.images[dataset.train]).all()
    np.save(tmp_path / "other.npy", digits("train")[400:900])
    with pytest.raises(InvalidInput, match="other images"):
        held_out.load(one, str(tmp_path / "other.npy"))
    np.save(tmp_path / "few.npy", digits("train")[:50])
    with pytest.raises(InvalidInput, match="has 50 images"):
        held_out.load(one, str(tmp_path / "few.npy"))


def test_a_bundle_may_have_been_chosen_by_what_training_held_out(run, bundle, engine):
    of = {
        split: held_out.Images("digits", *[engine.sample(2, seed=1)] * 2, split, True)
        for split in ("test", "validation")
    }
    served, trained = subject.load(bundle.path, CPU), subject.load(run.path, CPU)
    assert "--best" in commands._checkpoint(served, of["validation"])
    for one, split in ((served, "test"), (trained, "validation")):
        assert commands._checkpoint(one, of[split]) == "not chosen by the held-out images"


def test_other_training_images_are_doubted(command, bundle, tmp_path, monkeypatch, digits):
    changed = digits("train").copy()
    changed[0] ^= 1
    monkeypatch.setattr("training.data.sources._digits", lambda split: changed if split == "train" else changed[:297])
    command(bundle.path, "--metrics", "reconstruction", "--data", "digits", "--out", tmp_path / "out")
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["data"]["trained_on_these"] is False
    questions = [finding["question"] for finding in document["verdict"]["findings"]]
    assert "Was the model trained on this data set?" in questions


def test_what_the_command_refuses(fails, alone, tmp_path):
    fails([tmp_path], str(tmp_path), "neither a run", "nor a bundle")
    fails([alone, "--metrics", "fid"], "--metrics", "'fid'", "frechet")
    fails([alone, "--data", "nowhere"], "data", "'nowhere'")
    fails([alone, "--n", 3], "n: ", "at least 20", "3")
    fails([alone, "--weights", tmp_path / "weights.pth"], "--weights", "cifar10")


def test_interrupted_work_is_not_lost(monkeypatch, command, alone, tmp_path):
    monkeypatch.setenv("RAE_SERVE_CACHE", str(tmp_path / "cache"))
    calls = []
    compute = Cifar10Extractor.__call__

    def interrupted(self: object, images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        if sum(calls) > 1000:
            raise KeyboardInterrupt
        return compute(self, images)

    monkeypatch.setattr(Cifar10Extractor, "__call__", interrupted)
    status, _, err = command(alone, "--out", tmp_path / "out")
    assert (status, "the same command goes on" in err) == (130, True)
    assert not (tmp_path / "out").exists()
    done = sum(calls[:-1])
    calls[:] = [-(10**9)]
    assert command(alone, "--metrics", "frechet,memorisation", "--out", tmp_path / "out")[0] == 0
    fresh = 3 * 297 + 297 + 1425  # generated, reconstructed, held out, a sample of training; all training images
    assert 0 < sum(calls[1:]) <= fresh - done + 1000


def test_a_bundle_keeps_its_verdict_and_pictures(command, alone, tmp_path, fails, run):
    words = ("--data", "digits", "--metrics", "reconstruction", "-n", "40", "--out", tmp_path / "out")
    kept = shutil.copytree(alone, tmp_path / "kept")
    assert command(kept, *words, "--keep", "pictures")[0] == 0
    bundle = Bundle.load(kept)
    verdict = json.loads((tmp_path / "out" / "evaluation.json").read_text())["verdict"]
    assert bundle.manifest.evaluation.model_dump(include=verdict.keys()) == verdict
    assert bundle.manifest.digest == Bundle.load(alone).manifest.digest
    pictures = bundle.manifest.pictures()
    assert pictures[0].title == "Generated images"
    assert all(bundle.contents[picture.file].startswith(b"\x89PNG") for picture in pictures)
    np.save(tmp_path / "mine.npy", load_data(run.recipe, "digits").images)
    assert command(kept, *words, "--data", tmp_path / "mine.npy", "--keep", "verdict")[0] == 0
    again = Bundle.load(kept).manifest
    assert again.pictures() == []
    assert again.evaluation.data == "40 held-out images of digits"  # a bundle says nothing of this machine
    assert list(kept.glob("picture-*")) == []
    fails([run.path, *words, "--keep", "verdict"], "keep", "is no bundle")
