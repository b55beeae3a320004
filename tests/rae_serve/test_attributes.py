from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from rae_serve import attributes, labels
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput, NotFound

DIGITS = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
CLASSES = load_digits().target


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
    assert list(found) == ["0", "1"]
    zeros, ones = codes_of(engine, 0)[:60], codes_of(engine, 1)[:60]
    distance = np.linalg.norm(ones.mean(axis=0) - zeros.mean(axis=0))
    assert np.linalg.norm(found["1"].direction) == pytest.approx(distance, rel=0.1)
    assert np.allclose(found["1"].direction, -np.array(found["0"].direction), atol=1e-4)


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
    assert command("attributes", copy, "--data", folder)[0] == 0
    source = next(iter(Bundle.load(copy).manifest.attributes.values())).source
    assert source.endswith(f" of {folder.name}")  # and not where it lay
    assert command("attributes", copy, "--data", folder, "--method", "linear")[0] == 0
    annotated = Bundle.load(copy)  # whose hashes are true
    assert annotated.manifest.digest == bundle.manifest.digest
    assert list(annotated.manifest.attributes) == ["0", "1"]
    assert "logistic regression" in annotated.manifest.attributes["1"].source
    assert command("verify", copy)[0] == 0


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
    with pytest.raises(NotFound, match="no attribute 'smile'; it has 0, 1"):
        engine.edit(codes, "smile", [1.0])
    with pytest.raises(InvalidInput, match="strengths"):
        engine.edit(codes, "1", [float("nan")])
    engine.close()
