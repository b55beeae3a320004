"""Bundles of version 1: they are read, and upgraded without a change of their graphs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from rae_serve import bundle as bundles
from rae_serve import upgrading
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import BundleError, RaeServeError
from rae_serve.manifest import read_manifest, schema

VERSION_1 = Path(__file__).parents[1] / "data" / "version-1"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A bundle as version 1 wrote it."""
    return Path(shutil.copytree(VERSION_1, tmp_path / "old"))


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_version_1_is_read_as_version_2(old):
    manifest = Bundle.load(old).manifest
    assert manifest.schema_version == 2
    assert manifest.precision == {"prior": "float32", "decoder": "float32", "encoder": "float32"}
    assert (manifest.tolerance.latents, manifest.tolerance.grey_levels) == (1e-4, 1)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_damaged_manifest_of_version_1_is_refused(old, where):
    data = bytearray((old / "manifest.json").read_bytes())
    position = int(len(data) * where)
    while chr(data[position]).isspace():
        position += 1
    data[position] ^= 1
    (old / "manifest.json").write_bytes(data)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.load(old)


def test_an_upgrade_adds_what_is_missing_and_changes_no_image(old, command):
    before = state(old)
    images = Engine(Bundle.load(old), device="cpu").sample(5, seed=3)
    status, out, _ = command("upgrade", old)
    assert (status, out) == (0, f"{old}: version 2, added golden.json\n")
    jsonschema.validate(json.loads((old / "manifest.json").read_text()), schema())
    after = state(old)
    assert after.keys() - before.keys() == {"golden.json"}
    assert {name for name in before if after[name] != before[name]} <= {"manifest.json", "README.md"}
    upgraded = Bundle.load(old)
    assert upgraded.manifest.digest == json.loads(before["manifest.json"])["digest"]
    assert np.array_equal(Engine(upgraded, device="cpu").sample(5, seed=3), images)
    status, out, _ = command("verify", old)
    assert status == 0
    assert "golden.json: 4 of 4 images to the bit" in out


def test_an_upgrade_twice_changes_nothing(old, command):
    command("upgrade", old)
    once = state(old)
    assert command("upgrade", old)[:2] == (0, f"{old}: version 2, nothing to add\n")
    assert state(old) == once


def test_an_upgrade_elsewhere_leaves_the_bundle(old, command, fails, tmp_path):
    (old / "notes.txt").write_text("mine")
    before = state(old)
    assert command("upgrade", old, "--out", tmp_path / "new")[0] == 0
    assert state(old) == before
    assert "golden.json" in Bundle.load(tmp_path / "new").contents
    fails(["upgrade", old, "--out", tmp_path / "new"], str(tmp_path / "new"), "is in use")


@pytest.mark.parametrize("file", ["golden.json", "README.md", "manifest.json"])
def test_an_upgrade_that_fails_leaves_the_bundle(old, file, monkeypatch):
    before, write = state(old), bundles.files.write

    def full(path: Path, data: bytes) -> None:
        if path.name == file:
            raise RaeServeError(f"{path} cannot be written: No space left on device")
        write(path, data)

    monkeypatch.setattr(bundles.files, "write", full)
    with pytest.raises(RaeServeError, match="No space left"):
        upgrading.upgrade(Bundle.load(old))
    assert state(old) | {"README.md": b""} == before | {"README.md": b""}  # the card is for people only
    assert Bundle.load(old).manifest == read_manifest(VERSION_1 / "manifest.json")


def test_attributes_of_a_bundle_of_version_1_can_change_without_an_upgrade(old):
    annotated = bundles.annotate(Bundle.load(old), licence="MIT")
    assert annotated.manifest.licence == "MIT"
    assert annotated.vectors() is None
