"""Tables of attributes: how cells are separated, how images are named, and what is wrong with a table."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from rae_serve import labels
from rae_serve.errors import InvalidInput

FILES = ("a.png", "b.jpg", "c.png", "c.jpg", "in/d.png", "in/e.png", "out/e.png")


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "pictures"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read(folder: Path, text: str, name: str = "table.csv") -> dict[str, list[bool]]:
    """Return the values of each image, by its path, of a table with this text."""
    table = folder.parent / name
    table.write_text(text, encoding="utf-8")
    found = labels.from_table(table, folder)
    return {
        path.relative_to(folder).as_posix(): row for path, row in zip(found.images, found.has.tolist(), strict=True)
    }


@pytest.mark.parametrize(
    "text",
    [
        "file,one,two\na.png,1,0\nb.jpg,0,1\n",
        "file;one;two\r\na.png;1;0\r\nb.jpg;-1;1\r\n",
        "file\tleft eye\ttwo\na.png\t1\t0\nb.jpg\t0\t1\n",
        "file one two\na.png 1  0\n \nb.jpg -1  1 \n",
        "2\none two \na.png  1 -1\nb.jpg -1  1\n",
        '"file", "one, or so", "two"\n"a.png", 1, 0\n"b.jpg", 0, 1\n',
        'file;"one, or so";two\n"a.png";1;0\n"b.jpg";0;1\n',
        "\ufefffile,one,two\na.png,1,0\n  \n,,\nb.jpg,0,1",
    ],
)
def test_cells_may_be_separated_in_any_usual_way(folder, text):
    assert read(folder, text) == {"a.png": [True, False], "b.jpg": [False, True]}


def test_names_may_hold_what_separates_elsewhere(tmp_path):
    for name in ("a 1.png", "b;0.png", "c,1.png"):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / name).touch()
    assert len(read(tmp_path / "pictures", 'file,one\na 1.png,1\nb;0.png,0\n"c,1.png",1\n')) == 3
    assert len(read(tmp_path / "pictures", "file\tone\na 1.png\t1\nb;0.png\t0\nc,1.png\t1\n")) == 3


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("./a.png", "a.png"),
        ("in/d.png", "in/d.png"),
        ("d.png", "in/d.png"),
        ("in\\d.png", "in/d.png"),
        (".\\in\\d.jpg", "in/d.png"),
        ("pictures/in/d.png", "in/d.png"),
        ("pictures\\in\\e.png", "in/e.png"),
        ("../pictures/a.png", None),
        ("other/../in/e", "in/e.png"),
        ("{folder}/in/e.png", "in/e.png"),
        ("{folder}/d.png", None),
        ("pictures/d.png", None),
        ("train/a.png", None),
    ],
)
def test_an_image_is_named_by_its_path_from_here_or_from_above(folder, name, file):
    """A path that leads elsewhere does not name an image only because the bare names are the same."""
    table = f"file,one\nb.jpg,0\n{name.format(folder=folder)},1\n"
    assert read(folder, table) == {"b.jpg": [False]} | ({file: [True]} if file else {})


def test_a_path_may_begin_at_the_table(folder):
    (folder.parent / "tables").mkdir()
    assert read(folder, "file,one\n../pictures/a.png,1\n", "tables/t.csv") == {"a.png": [True]}


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_agree_in_every_unicode_form(tmp_path, on_disk, in_table):
    (tmp_path / "é").mkdir()
    (tmp_path / "é" / unicodedata.normalize(on_disk, "é.png")).touch()
    found = read(tmp_path / "é", f"file,one\n{unicodedata.normalize(in_table, 'é/é.png')},1\n")
    assert list(found.values()) == [[True]]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,one\na.png,1\ne.png,1\n", r"line 3: 'e.png' may be in/e.png and out/e.png; write the path"),
        ("file,one\nc,1\n", r"line 2: 'c' may be c.jpg and c.png; write the path, with its suffix"),
        ('file,one\n"a.png,1\n' + "b.jpg,0\n" * 20_000, "line 2: .* is a quotation mark missing"),
        ('file,one\na.png,1\n"b.jpg,0\n', "line 3: .* is a quotation mark missing"),
        ('file,one\n"a.png,1\n"b.jpg,0\n', "line 2: .* is a quotation mark missing"),
        ("a.png,1,0\nb.jpg,0,1\n", "line 1: must be a header that names the attributes"),
        ("elsewhere.png;1\na.png;0\n", "line 1: must be a header"),
        ("a,1\nb,0\n", "line 1: must be a header"),
        ("file,one,one\na.png,1,0\n", "line 1: two columns are named 'one'"),
        ("file,one,\na.png,1,\n", "line 1: column 3 has no name"),
        ("file\na.png\n", "line 1: names no attribute"),
        ("5", "names no attribute"),
        ("file,one\n", "it has no rows, the folder holds 'a.png'"),
        ("file,one\n/far/away/a.png,1\n", "it names '/far/away/a.png', the folder holds 'a.png'"),
        ("file,one\na.png,1.5\n", "line 2: must be 0 or 1 .* not '1.5'"),
        ("file;one;two\na.png;1,0;0,0\n", "line 2: must be 0 or 1 .* not '1,0'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(folder, text, problem):
    with pytest.raises(InvalidInput, match=problem) as raised:
        read(folder, text)
    assert raised.value.field == "labels"


def test_a_header_of_digits_is_a_header(folder):
    assert read(folder, "file,0,1\na.png,1,0\n") == {"a.png": [True, False]}


def test_a_table_in_another_encoding_is_named(folder):
    (folder.parent / "t.csv").write_bytes("file,café\na.png,1\n".encode("latin-1"))
    with pytest.raises(InvalidInput, match=r"cannot be read: .*; save it as UTF-8"):
        labels.from_table(folder.parent / "t.csv", folder)
