from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from rae_serve import attributes, labels
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput, NotFound
from rae_serve.manifest import Attribute

DIGITS = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
CLASSES = load_digits().target
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Zeros and ones in class folders."""
    root = tmp_path_factory.mktemp("classes")
    for row in np.flatnonzero(CLASSES < 2)[:120]:
        file = root / str(CLASSES[row]) / f"{row}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(DIGITS[row]).save(file)
    return root


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.path, tmp_path / "copy"))


def codes_of(engine: Engine, digit: int) -> np.ndarray:
    return engine.encode(DIGITS[digit == CLASSES][..., None]).astype(np.float64)


@pytest.mark.parametrize("method", ["difference", "linear"])
def test_strength_one_is_the_distance_between_the_classes(engine, folder, method):
    found = attributes.find(engine, labels.from_folders(folder), method)
    assert (list(found), found["1"].opposite) == (["1"], "0")
    zeros, ones = codes_of(engine, 0)[:60], codes_of(engine, 1)[:60]
    distance = np.linalg.norm(ones.mean(axis=0) - zeros.mean(axis=0))
    assert np.linalg.norm(found["1"].direction) == pytest.approx(distance, rel=0.1)
    assert np.dot(found["1"].direction, ones.mean(axis=0) - zeros.mean(axis=0)) > 0


def test_the_auc_is_that_of_scikit_learn():
    has = RNG.random(500) < 0.3
    for scores in (RNG.normal(size=500) + has, RNG.integers(0, 4, 500) + 1.0 * has, np.zeros(500), -1.0 * has):
        assert attributes.auc(scores, has) == pytest.approx(roc_auc_score(has, scores), abs=1e-12)


@pytest.mark.parametrize("method", ["difference", "linear"])
def test_a_direction_is_measured_on_images_that_it_was_not_found_from(engine, method):
    """With fewer images than dimensions, random labels can be separated perfectly, but only on the same images."""
    rows = np.flatnonzero(CLASSES < 2)[:60]
    chance = RNG.permutation(np.arange(60) % 2 == 0)
    of_class = CLASSES[rows] == 1
    few = np.isin(np.arange(60), [1, 20, 40, 50])
    has = np.stack([of_class, chance, few], axis=1)
    labelled = labels.Labelled("digits", DIGITS[rows][..., None], ["one", "chance", "few"], has)
    found = attributes.find(engine, labelled, method)
    assert found["one"].auc > 0.95
    assert found["chance"].auc == pytest.approx(0.5, abs=0.2)
    assert found["few"].auc is None
    assert [found[name].images for name in found] == [(of_class.sum(), 60 - of_class.sum()), (30, 30), (4, 56)]
    assert attributes.find(engine, labelled, method) == found


def test_a_model_that_makes_all_images_alike_has_no_good_direction(monkeypatch, engine, folder):
    monkeypatch.setattr(engine, "encode", lambda images: np.full((len(images), 8), 0.1, np.float32))
    for method in ("difference", "linear"):
        (found,) = attributes.find(engine, labels.from_folders(folder), method).values()
        assert found.auc == 0.5


def test_columns_that_complement_each_other_are_the_ends_of_one_direction(engine):
    rows = np.flatnonzero(CLASSES < 3)[:90]
    names = ["zero", "one", "two", "not zero", "large"]
    columns = [*(CLASSES[rows] == k for k in range(3)), CLASSES[rows] != 0, CLASSES[rows] != 0]
    labelled = labels.Labelled("digits", DIGITS[rows][..., None], names, np.stack(columns, axis=1))
    found = attributes.find(engine, labelled, "difference")
    opposites = {name: attribute.opposite for name, attribute in found.items()}
    assert opposites == {"one": None, "two": None, "not zero": "zero", "large": None}


@pytest.mark.parametrize("method", [attributes.difference, attributes.linear])
def test_a_held_out_classifier_follows_the_strength(engine, method):
    """Direction from one half of the digits, nearest class mean from the other."""
    zeros, ones = codes_of(engine, 0), codes_of(engine, 1)
    codes, has = np.r_[zeros[::2], ones[::2]], np.r_[np.zeros(len(zeros[::2]), bool), np.ones(len(ones[::2]), bool)]
    direction = method(codes, has)

    def ones_among(strength: float) -> float:
        moved = zeros[1::2] + strength * direction
        far, near = (np.linalg.norm(moved - mean[1::2].mean(axis=0), axis=1) for mean in (zeros, ones))
        return float((near < far).mean())

    rates = [ones_among(strength) for strength in (-1, 0, 1)]
    assert rates[0] <= rates[1] < 0.2
    assert rates[2] > 0.8


def test_the_linear_normal_leaves_alone_what_merely_goes_along():
    rng = np.random.default_rng(0)
    has = rng.random(4000) < 0.5
    cause = rng.normal(size=4000) * 0.3 + has
    along = cause + rng.normal(size=4000)  # says nothing beyond `cause`
    codes = np.c_[cause, along]
    normal, difference = attributes.linear(codes, has), attributes.difference(codes, has)
    assert abs(normal[1] / normal[0]) < 0.1 < 0.8 < difference[1] / difference[0]


def test_tables_of_both_kinds_say_the_same(folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    csv = tmp_path / "labels.csv"
    lines = [f"{file.name},{file.parent.name},{1 - int(file.parent.name)}" for file in files]
    csv.write_text("\n".join(["file,one,zero", *lines, "missing.png,0,1"]))
    celeba = tmp_path / "list_attr_celeba.txt"
    rows = [f"{file.name}  {'1 -1' if file.parent.name == '1' else '-1  1'}" for file in files]
    celeba.write_text("\n".join([str(len(files)), "one zero ", *rows, ""]))
    by_csv, by_celeba = labels.from_table(csv, folder), labels.from_table(celeba, folder)
    assert by_csv.names == by_celeba.names == ["one", "zero"]
    assert by_csv.images == by_celeba.images == files
    assert np.array_equal(by_csv.has, by_celeba.has)
    assert by_csv.has[:, 0].tolist() == [file.parent.name == "1" for file in files]


def test_a_table_names_files_with_their_ending_another_or_none(tmp_path):
    for name in ("a.png", "b.jpg", "c.png", "c.jpg", "d.e.png", "inside/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    table = tmp_path / "labels.csv"
    table.write_text("name,one\na,1\nb.png,1\nc.jpg,1\nd.e,1\nf.jpg,1\ninside/f,0\n,1\n.,1\n")
    found = labels.from_table(table, tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in found.images]
    assert names == ["a.png", "b.jpg", "c.jpg", "d.e.png", "inside/f.png", "inside/f.png"]
    assert found.has[:, 0].tolist() == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,one\na.png,2\n", "line 2: must be 0 or 1 .* not '2'"),
        ("file,one\na.png,1,1\n", "line 2: 2 values for 1 attributes"),
        ("file,one\nb.png,1\n", "names no image"),
        ("", "line 1: names no attribute"),
    ],
)
def test_a_table_that_does_not_fit_is_named(tmp_path, text, problem):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(InvalidInput, match=problem) as raised:
        labels.from_table(table, tmp_path / "pictures")
    assert raised.value.field == "labels"


def test_data_that_cannot_be(engine, folder, tmp_path):
    with pytest.raises(InvalidInput, match="no two folders"):
        labels.from_folders(tmp_path)
    found = labels.from_folders(folder)
    one = labels.Labelled("data", found.images, ["all"], np.ones((len(found.has), 1), bool))
    with pytest.raises(InvalidInput, match="'all': 120 readable images have it and 0 do not"):
        attributes.find(engine, one, "difference")
    (tmp_path / "text.png").write_text("no picture")
    broken = labels.Labelled(
        "data", [tmp_path / "text.png"] * 200 + found.images, found.names, np.ones((320, 2), bool)
    )
    with pytest.raises(InvalidInput, match="200 of 320 files are no readable pictures"):
        attributes.find(engine, broken, "difference")


def test_the_command_keeps_them_in_the_bundle(command, bundle, copy, folder):
    status, out, err = command("attributes", copy, "--data", folder)
    assert (status, err) == (0, "")
    assert re.search(r"0 to 1 +59 +61 +(1\.00|0\.9\d) *\n", out)
    assert re.search(r"attributes +0 to 1 \(AUC (1\.00|0\.9\d)\) *\n", command("inspect", copy)[1])
    source = next(iter(Bundle.load(copy).manifest.attributes.values())).source
    assert source.endswith(f" of {folder.name}")  # and not where it lay
    assert command("attributes", copy, "--data", folder, "--method", "linear")[0] == 0
    annotated = Bundle.load(copy)  # whose hashes are true
    assert annotated.manifest.digest == bundle.manifest.digest
    assert list(annotated.manifest.attributes) == ["1"]
    assert "logistic regression" in annotated.manifest.attributes["1"].source
    assert command("verify", copy)[0] == 0


def test_the_command_warns_of_weak_directions_and_of_those_that_it_cannot_measure(command, copy, folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    table = tmp_path / "labels.csv"
    rows = [f"{file.name},{file.parent.name},{k % 2},{int(k % 40 == 0)}" for k, file in enumerate(files)]
    table.write_text("\n".join(["file,one,[even],rare", *rows]))
    status, out, err = command("attributes", copy, "--data", folder, "--labels", table)
    assert status == 0
    assert re.search(r"\[even\] +60 +60 +0\.[3-6]\d *\nrare +3 +117 +unknown *\n", out)
    weak, unmeasured = err.splitlines()
    assert weak.startswith("weak: [even]. Below an AUC of 0.75 (0.5 is chance), ")
    assert unmeasured.startswith("not measured: rare. Give at least 5 ")
    assert re.search(r"one \(AUC \S+\), \[even\] \(AUC 0\.\d\d\), rare *\n", command("inspect", copy)[1])


def test_new_attributes_replace_those_with_the_name_of_an_end():
    def attribute(opposite: str | None = None, auc: float | None = None) -> Attribute:
        return Attribute(direction=[1.0], source="by hand", opposite=opposite, auc=auc)

    mirrored = {"0": attribute(), "1": attribute(), "smile": attribute()}
    pair = {"1": attribute(opposite="0", auc=0.9)}
    assert attributes.merge(mirrored, pair) == {"smile": attribute(), **pair}
    for others in ({"1": attribute(opposite="0")}, {"0": attribute(opposite="1")}, {"0": attribute()}):
        assert attributes.merge({"smile": attribute(), **pair}, others) == {"smile": attribute(), **others}


def test_the_command_names_what_is_wrong(fails, copy, tmp_path):
    fails(["attributes", copy, "--data", tmp_path], "data", "no two folders")
    fails(["attributes", copy, "--data", "nothing"], "data", "'nothing'")
    fails(["attributes", copy, "--data", "nothing", "--labels", "x.csv"], "data", "with --labels")
    fails(["attributes", copy, "--data", tmp_path, "--labels", "x.csv"], "labels", "x.csv")
    assert Bundle.load(copy).manifest.attributes == {}


def test_edits_move_along_the_direction(command, copy, folder):
    command("attributes", copy, "--data", folder)
    engine = Engine(Bundle.load(copy), device="cpu")
    codes = engine.encode(engine.sample(2, seed=1))
    edited = engine.edit(codes, "1", [0.0, 2.0])
    assert edited.shape == (4, 8, 8, 1)
    assert np.array_equal(edited[[0, 2]], engine.decode(codes))
    direction = np.array(engine.manifest.attributes["1"].direction)
    assert np.array_equal(edited[3:], engine.decode((codes[1:] + 2.0 * direction).astype(np.float32)))
    assert np.array_equal(engine.edit(codes, "0", [-2.0, 2.0]), engine.edit(codes, "1", [2.0, -2.0]))
    with pytest.raises(NotFound, match="no attribute 'smile'; it has 0, 1"):
        engine.edit(codes, "smile", [1.0])
    with pytest.raises(InvalidInput, match="strengths"):
        engine.edit(codes, "1", [float("nan")])
    engine.close()
