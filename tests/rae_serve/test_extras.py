from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from rae_serve import extras
from rae_serve.errors import MissingExtra, RaeServeError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed_from(monkeypatch):
    """Pretend that pip recorded this direct_url.json; None is an installation from an index."""

    def pretend(record: object) -> None:
        monkeypatch.setattr(extras, "__file__", "/usr/lib/python3/site-packages/rae_serve/extras.py")

        class Distribution:
            def read_text(self, name: str) -> str | None:
                assert name == "direct_url.json"
                return None if record is None else json.dumps(record)

        monkeypatch.setattr(extras, "distribution", lambda name: Distribution())

    return pretend


def target_of(command: str) -> list[str]:
    """The words after `python -m pip install`, as a shell reads them."""
    python, *words = shlex.split(command)
    assert Path(python).absolute() == Path(sys.executable)
    assert words[:3] == ["-m", "pip", "install"]
    return words[3:]


def test_an_index_is_named_by_the_package(installed_from):
    installed_from(None)
    command = extras.install_command("train")
    assert target_of(command) == ["rae-serve[train]"]
    assert command.endswith(" -m pip install 'rae-serve[train]'")  # brackets are a pattern to the shell
    installed_from({"url": "https://example.org/rae-serve.git", "vcs_info": {"vcs": "git"}})
    assert target_of(extras.install_command("client")) == ["rae-serve[client]"]


def test_the_working_directory_is_a_dot(installed_from, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    installed_from({"url": tmp_path.as_uri(), "dir_info": {}})
    assert extras.install_command("train").endswith(" '.[train]'")
    assert target_of(extras.install_command("train")) == [".[train]"]


def test_an_editable_folder_stays_editable(installed_from, tmp_path, monkeypatch):
    installed_from({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    monkeypatch.chdir("/")
    assert target_of(extras.install_command("cli")) == ["--editable", f"{str(tmp_path)[1:]}[cli]"]
    monkeypatch.chdir(tmp_path.parent)  # a folder's bare name would be a package of an index
    assert target_of(extras.install_command("cli")) == ["--editable", f"./{tmp_path.name}[cli]"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert target_of(extras.install_command("cli")) == ["--editable", f"{tmp_path}[cli]"]


def test_a_wheel_is_named_by_its_file(installed_from, tmp_path, monkeypatch):
    wheel = tmp_path / "rae_serve-0.1.0-py3-none-any.whl"
    installed_from({"url": wheel.as_uri(), "archive_info": {}})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert target_of(extras.install_command("server")) == [f"{wheel}[server]"]


def test_a_path_with_a_space_is_quoted(installed_from, tmp_path, monkeypatch):
    folder = tmp_path / "my models"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    installed_from({"url": folder.as_uri(), "dir_info": {}})
    command = extras.install_command("train")
    assert command.endswith(" './my models[train]'")
    assert target_of(command) == ["./my models[train]"]


@pytest.mark.parametrize("metadata", [False, True])
def test_a_checkout_is_the_target(installed_from, monkeypatch, metadata):
    """Python finds it before the installed package; a build may have left metadata in it, without pip's record."""

    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    installed_from(None)
    monkeypatch.setattr(extras, "__file__", str(ROOT / "rae_serve" / "extras.py"))
    if not metadata:
        monkeypatch.setattr(extras, "distribution", missing)
    monkeypatch.chdir(ROOT)
    assert target_of(extras.install_command("train")) == [".[train]"]


def test_a_missing_package_is_named_with_the_command_that_installs_it(installed_from, monkeypatch):
    installed_from(None)
    monkeypatch.setitem(sys.modules, "httpx", None)
    message = r"^this needs httpx, .* -m pip install 'rae-serve\[client\]'$"
    with pytest.raises(MissingExtra, match=message) as raised, extras.needed("client"):
        import httpx  # noqa: F401
    assert isinstance(raised.value, RaeServeError)
    assert isinstance(raised.value, ImportError)


def test_a_mistake_of_this_repository_is_no_missing_package():
    with pytest.raises(ModuleNotFoundError, match=r"rae_serve\.nothing") as raised, extras.needed("cli"):
        import rae_serve.nothing  # noqa: F401
    assert not isinstance(raised.value, MissingExtra)
