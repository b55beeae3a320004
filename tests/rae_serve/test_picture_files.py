"""Picture files: the walk over a folder, names that are not UTF-8, and what is too large or too dark."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rae_serve import attributes, labels, picture_files
from rae_serve.bundle import Bundle, annotate
from rae_serve.errors import InvalidInput
from rae_serve.files import printable

LATIN1 = os.fsdecode(b"caf\xe9")  # a name that is not UTF-8


def save(path: Path, level: int = 9, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path, "PNG")
    return path


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in picture_files.find(folder)]


def test_files_are_found_in_all_subfolders_in_the_order_of_their_paths(tmp_path):
    for name in ("b.png", "a/z.png", "a/b/c.png", "a-b.png", "B.png", "a.png"):
        save(tmp_path / name)
    assert found(tmp_path) == ["B.png", "a/b/c.png", "a/z.png", "a-b.png", "a.png", "b.png"]


def test_hidden_files_and_folders_are_left_out_but_the_folder_itself_may_be_hidden(tmp_path):
    root = tmp_path / ".mine"
    for name in ("a.png", ".a.png", ".ipynb_checkpoints/a.png", "b/.c/d.png", "b/._e.png"):
        save(root / name)
    assert found(root) == ["a.png"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    cats, root = tmp_path / "cats", tmp_path / "root"
    save(cats / "1.png")
    (cats / "home").symlink_to(root)
    save(root / "0.png")
    (root / "linked").symlink_to(cats)
    (root / "twice").symlink_to(cats)
    (root / "file.png").symlink_to(cats / "1.png")
    (root / "itself").symlink_to(root)
    assert found(root) == ["0.png", "file.png", "linked/1.png", "twice/1.png"]
    (tmp_path / "link").symlink_to(root)
    assert found(tmp_path / "link") == found(root)


def test_what_cannot_be_read_is_returned_and_then_reported(tmp_path):
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "pipe.png")  # whose reading would never end
    assert found(tmp_path) == ["gone.png", "self.png"]
    for read in (picture_files.read, picture_files.read_header):
        with pytest.raises(InvalidInput, match="cannot be read: No such file"):
            read(tmp_path / "gone.png")
    with pytest.raises(InvalidInput, match=r"data: .* cannot be read"):
        picture_files.find(tmp_path / "no folder")


def test_a_class_folder_counts_what_training_would_train_on(tmp_path):
    """Hidden folders, such as Jupyter's, do not count; links do."""
    for k in range(3):
        save(tmp_path / "cats" / f"{k}.png")
        save(tmp_path / "cats" / ".ipynb_checkpoints" / f"{k}-checkpoint.png")
        save(tmp_path / "elsewhere" / f"{k}.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cats").symlink_to(tmp_path / "cats")
    (tmp_path / "data" / "dogs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "loop").symlink_to(".")
    labelled = labels.from_folders(tmp_path / "data")
    assert labelled.names == ["cats", "dogs"]
    assert labelled.has.sum(axis=0).tolist() == [3, 3]
    assert labelled.images == picture_files.find(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"caf\xe9", r"caf\xe9"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"a\nb\x1b[1m", r"a\x0ab\x1b[1m"),
        ("ünïcødé 名前 🙂".encode(), "ünïcødé 名前 🙂"),
    ],
)
def test_any_path_is_one_line_of_utf8(name, text):
    assert printable(os.fsdecode(name)) == text
    assert printable(Path(os.fsdecode(name))) == text


def test_classes_and_bundles_whose_names_are_not_utf8(engine, bundle, tmp_path):
    for k in range(12):
        save(tmp_path / "data" / (LATIN1, "tea", "water")[k % 3] / f"{k}.png", 20 * k)
    copy = tmp_path / LATIN1
    copy.mkdir()
    for path in bundle.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    found = attributes.find(engine, labels.from_folders(tmp_path / "data"), "difference")
    annotated = annotate(Bundle.load(copy), attributes=found)
    assert annotated.name == r"caf\xe9"
    assert r"caf\xe9" in annotated.manifest.attributes
    assert (copy / "README.md").read_text(encoding="utf-8").count("\n# caf\\xe9\n") == 1


def test_own_pictures_have_one_limit_in_all_commands(command, bundle, tmp_path):
    """A picture beyond 50 million pixels, which the server would refuse."""
    large = save(tmp_path / "large.png", 9, (7200, 7200))
    assert picture_files.read_header(large) == (7200, 7200, True)
    assert picture_files.read(large).size == (7200, 7200)
    labelled = labels.Labelled("data", [large], ["a"], np.ones((1, 1), bool))
    assert [row for row, _ in labels.pixels(labelled, bundle.manifest.image)] == [0]
    assert command("encode", bundle.path, large, "--out", tmp_path / "codes.npy")[0] == 0


def test_dark_pictures_are_counted_once(command, bundle, tmp_path, caplog):
    for k in range(3):
        Image.fromarray(np.full((8, 8), 1000 + k, np.uint16)).save(tmp_path / f"{k}.png")
    Image.fromarray(np.full((8, 8), 60_000, np.uint16)).save(tmp_path / "bright.png")
    assert command("encode", bundle.path, *tmp_path.glob("*.png"), "--out", tmp_path / "codes.npy")[0] == 0
    (message,) = caplog.messages
    assert message.startswith("3 pictures of 16 bits have no value above a quarter of the range")
