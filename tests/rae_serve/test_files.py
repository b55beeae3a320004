"""Files and folders that appear whole or not at all, wherever they are put."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rae_serve import files
from rae_serve.errors import RaeServeError


def fill(path: Path, **options: object) -> None:
    with files.new_folder(path, **options) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "data").write_text("new")
        (folder / "mark").write_text("new")


def contents(path: Path) -> set[str]:
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("place", ["new", "not/yet/there", "empty", ".", "link", "broken link", "v1.5", "system"])
def test_a_folder_is_made_or_filled_in_place(tmp_path, monkeypatch, place):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("empty", "target", "system", "system/lost+found"):
        Path(tmp_path / "here" / name).mkdir()
    Path("system/.lock").touch()
    Path("link").symlink_to("target")
    Path("broken link").symlink_to("made")
    if place == ".":
        monkeypatch.chdir(Path("empty"))
    path = Path(place)
    was = path.stat().st_ino if path.exists() else None
    files.check_new_folder(path)
    with files.new_folder(path) as folder:
        (folder / "data").write_text("whole")
        # A mount point's or a read-only parent could not hold the draft of a folder that is there.
        assert was is None or folder.parent == path.resolve()
        assert not (path / "data").exists()
    assert (path / "data").read_text() == "whole"
    assert was in (None, path.stat().st_ino)
    assert path.is_symlink() == ("link" in place)
    assert [name for name in os.listdir(path) if name.startswith(".draft")] == []


@pytest.mark.parametrize("place", ["new", "not/yet/there", "empty"])
def test_a_block_that_fails_leaves_nothing(tmp_path, place):
    (tmp_path / "empty").mkdir()

    def work() -> None:
        with files.new_folder(tmp_path / place) as folder:
            (folder / "data").write_text("a part")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    with files.new_file(tmp_path / "x") as first, files.new_file(tmp_path / "x") as second:
        first.write(b"first")
        second.write(b"second")
        assert [files.target_of_draft(name) for name in os.listdir(tmp_path)] == ["x", "x"]
    assert (tmp_path / "x").read_bytes() == b"first"  # the file that is finished last
    assert contents(tmp_path) == {"x"}
    assert [files.target_of_draft(name) for name in ("x", ".draft-0123abcd", ".x.draft")] == [None] * 3


def test_a_file_whose_block_fails_is_as_it_was(tmp_path):
    (tmp_path / "x").write_text("old")

    def work() -> None:
        with files.new_file(tmp_path / "x") as file:
            file.write(b"a part")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert (tmp_path / "x").read_text() == "old"
    assert contents(tmp_path) == {"x"}


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("used", "used is in use; choose another folder or remove it first"),
        ("file", "file is a file, not a folder"),
        ("link to file", "link to file is a file, not a folder"),
        ("loop", "loop is a file, not a folder"),
        ("file/x", r"file/x cannot be written: .*file is a file"),
        ("file/x/y", r"file/x/y cannot be written: .*file is a file"),
        ("n" * 300, "cannot be written: File name too long"),
    ],
)
def test_any_other_place_is_an_error_before_the_work(tmp_path, place, problem):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link to file").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(os.walk(tmp_path))
    with pytest.raises(RaeServeError, match=problem):
        files.check_new_folder(tmp_path / place)
    with pytest.raises(RaeServeError, match=problem), files.new_folder(tmp_path / place):
        raise AssertionError("the work has begun")
    assert sorted(os.walk(tmp_path)) == before


def test_a_folder_that_is_used_meanwhile_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()

    def work() -> None:
        with files.new_folder(tmp_path / "out") as folder:
            (folder / "data").write_text("late")
            (tmp_path / "out" / "data").write_text("first")

    with pytest.raises(RaeServeError, match="in use"):
        work()
    assert (tmp_path / "out" / "data").read_text() == "first"
    assert contents(tmp_path) == {"out/data"}


def test_a_used_folder_of_the_same_kind_is_refused_filled_or_swapped(tmp_path):
    out = tmp_path / "out"
    fill(out, mark="mark")
    (out / "mine.txt").write_text("mine")
    with pytest.raises(RaeServeError, match="in use"):
        fill(out, mark="mark")
    with pytest.raises(RaeServeError, match="in use"):
        fill(out, mark="another", used="swap")
    (out / "mark").write_text("old")
    fill(tmp_path / "filled", mark="mark", used="fill")
    fill(out, mark="mark", used="swap")
    assert contents(tmp_path) == {f"{name}/{file}" for name in ("out", "filled") for file in ("mark", "sub/data")}
    assert (out / "mark").read_text() == "new"


def test_a_folder_is_filled_again_file_by_file(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "mark").write_text("old")
    with files.new_folder(tmp_path, mark="mark", used="fill") as folder:
        (folder / "mark").write_text("new")
    assert (tmp_path / "mark").read_text() == "new"
    assert contents(tmp_path) == {"mark", "mine.txt"}


def test_a_swap_that_fails_leaves_the_old_folder(tmp_path, monkeypatch):
    fill(tmp_path / "out", mark="mark")
    (tmp_path / "out" / "mark").write_text("old")
    rename = Path.rename

    def fails_for_the_draft(self: Path, target: Path) -> Path:
        if self.name.startswith(".draft"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_draft)
    with pytest.raises(RaeServeError, match="Input/output error"):
        fill(tmp_path / "out", mark="mark", used="swap")
    assert (tmp_path / "out" / "mark").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name, target in (("a.png", "elsewhere/a.png"), ("b.png", "a.png"), ("null.png", "/dev/null")):
        (tmp_path / name).symlink_to(target)
    for data in (b"first", b"second"):
        files.write(tmp_path / "b.png", data)
        files.write(tmp_path / "null.png", data)
        assert (tmp_path / "elsewhere" / "a.png").read_bytes() == data
    assert all((tmp_path / name).is_symlink() for name in ("a.png", "b.png", "null.png"))
    assert Path("/dev/null").is_char_device()
    assert contents(tmp_path / "elsewhere") == {"a.png"}


@pytest.mark.parametrize(
    ("place", "problem"),
    [("file/x.png", "file is a file"), ("no/x.png", "No such file or directory"), ("folder", "Is a directory")],
)
def test_a_file_that_cannot_be_written_names_why(tmp_path, place, problem):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RaeServeError, match=f"{place} cannot be written: .*{problem}"):
        files.write(tmp_path / place, b"data")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
