"""Models that come, change and go on disk while they are served."""

from __future__ import annotations

import io
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient

from rae_serve import bundle as bundles
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import NotFound
from rae_serve.files import printable
from rae_serve.server import metrics
from rae_serve.server.app import create_app
from rae_serve.server.catalog import Catalog
from rae_serve.server.middleware import RequestMiddleware
from rae_serve.server.settings import Settings
from tests.waiting import wait_until


@pytest.fixture
def folder(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "one")
    return tmp_path


@pytest.fixture
def catalog(folder):
    catalog = Catalog(Settings(bundles=str(folder), device="cpu", reload_seconds=0.05))
    assert not catalog.ready()
    catalog.load()
    assert catalog.ready()
    yield catalog
    catalog.close()
    assert not catalog.ready()


def with_false_golden(bundle: Bundle, path: Path) -> None:
    """A bundle whose hashes are right, and whose prior does not compute its golden latents."""
    contents = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    buffer = io.BytesIO()
    golden = bundle.golden()
    np.savez(buffer, **golden | {"latent": golden["latent"] * 1.1})
    contents["golden.npz"] = buffer.getvalue()
    bundles.write(path, bundle.manifest.model_dump(exclude={"files", "digest"}), contents)
    Bundle.load(path)


def test_waiting_rows_of_every_queue_are_counted(catalog, monkeypatch):
    queues = catalog.engines["one"].waiting
    waiting = {graph: rows for rows, graph in enumerate(sorted(queues), 1)}
    monkeypatch.setattr(Engine, "waiting", waiting)
    catalog.update_metrics()
    samples = next(iter(metrics.WAITING_ROWS.collect())).samples
    assert {sample.labels["graph"]: sample.value for sample in samples} == waiting


def test_bundles_come_and_go(catalog, folder):
    shutil.copytree(folder / "one", folder / "two")
    catalog.refresh()
    assert list(catalog.engines) == ["one", "two"]
    shutil.rmtree(folder / "two")
    catalog.refresh()
    assert list(catalog.engines) == ["one", "two"]  # it may be being replaced
    catalog.refresh()
    assert list(catalog.engines) == ["one"]
    shutil.rmtree(folder / "one")
    catalog.refresh()
    catalog.refresh()
    assert not catalog.ready()
    with pytest.raises(NotFound, match="the server has no model"):
        catalog.engine()
    with pytest.raises(NotFound, match="there is no model 'one'; the models are: none"):
        catalog.engine("one")


def test_a_default_model_that_is_gone_is_named(folder):
    shutil.copytree(folder / "one", folder / "two")
    catalog = Catalog(Settings(bundles=str(folder), default_model="two", device="cpu"))
    catalog.load()
    assert catalog.engine() is catalog.engine("two")
    shutil.rmtree(folder / "two")
    for _ in range(2):
        catalog.refresh()
    with pytest.raises(NotFound, match="the default model 'two' is not loaded; name another model, one of: one"):
        catalog.engine()
    client = TestClient(RequestMiddleware(create_app(catalog), catalog.settings))
    assert "'two'" in client.post("/v1/sample", json={}).json()["detail"]
    assert client.post("/v1/sample", json={"model": "one"}).status_code == 200
    assert [model["default"] for model in client.get("/v1/models").json()["models"]] == [False]
    assert client.get("/openapi.json").status_code == 200
    catalog.close()


def test_a_changed_bundle_takes_its_place_and_the_old_one_still_answers(catalog, folder, bundle):
    old = catalog.engine("one")
    bundles.annotate(Bundle.load(folder / "one"), licence="another")
    catalog.refresh()
    new = catalog.engine("one")
    assert new is not old
    assert new.manifest.licence == "another"
    assert np.array_equal(old.sample(3, seed=1), new.sample(3, seed=1))
    catalog.refresh()
    assert catalog.engine("one") is new


def test_a_bundle_damaged_at_the_start_is_left_out_until_it_is_mended(folder, caplog):
    shutil.copytree(folder / "one", folder / "two")
    whole = (folder / "two" / "decoder.onnx").read_bytes()
    (folder / "two" / "decoder.onnx").write_bytes(whole[:-1])
    catalog = Catalog(Settings(bundles=str(folder), device="cpu"))
    catalog.load()
    assert list(catalog.engines) == ["one"]
    assert not catalog.ready()
    assert "decoder.onnx is damaged" in caplog.text
    (folder / "two" / "decoder.onnx").write_bytes(whole)
    catalog.refresh()
    assert list(catalog.engines) == ["one", "two"]
    assert catalog.ready()
    catalog.close()


def test_a_damaged_bundle_never_replaces_a_good_one(catalog, folder, caplog):
    good = catalog.engine("one")
    decoder = folder / "one" / "decoder.onnx"
    data = decoder.read_bytes()
    decoder.write_bytes(data[:1000])
    catalog.refresh()
    assert catalog.engine("one") is good
    assert "decoder.onnx is damaged" in caplog.text
    catalog.refresh()
    assert caplog.text.count("is damaged") == 1
    decoder.write_bytes(data)
    catalog.refresh()
    assert catalog.engine("one") is not good


def test_one_whose_graphs_are_not_the_golden_ones_never_does_either(catalog, folder, bundle, caplog):
    good = catalog.engine("one")
    shutil.rmtree(folder / "one")
    with_false_golden(bundle, folder / "one")
    catalog.refresh()
    assert catalog.engine("one") is good
    assert "differs from its golden" in caplog.text


def test_such_a_bundle_is_not_served_from_the_start(folder, bundle, caplog):
    with_false_golden(bundle, folder / "two")
    catalog = Catalog(Settings(bundles=str(folder), device="cpu"))
    catalog.load()
    assert list(catalog.engines) == ["one"]
    assert not catalog.ready()
    assert "golden latents" in caplog.text
    catalog.close()


def test_a_bundle_that_is_taken_away_takes_no_other_with_it(folder, bundle, tmp_path):
    other = shutil.copytree(bundle.path, tmp_path / "apart" / "other")
    catalog = Catalog(Settings(bundles=f"{folder / 'one'}:{other}", device="cpu"))
    catalog.load()
    assert list(catalog.engines) == ["one", "other"]
    shutil.rmtree(other)
    for _ in range(3):
        catalog.refresh()
    assert (list(catalog.engines), catalog.ready()) == (["one"], True)
    catalog.close()


def test_a_link_is_served_by_its_own_name_and_followed(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "versions" / "v1")
    with_false_golden(bundle, tmp_path / "versions" / "v2")
    served = tmp_path / "served"
    served.mkdir()
    (served / "current").symlink_to(tmp_path / "versions" / "v2")
    catalog = Catalog(Settings(bundles=str(served), device="cpu"))
    catalog.load()
    assert (list(catalog.engines), catalog.ready()) == ([], False)
    (served / "next").symlink_to(tmp_path / "versions" / "v1")
    (served / "next").replace(served / "current")
    catalog.refresh()
    assert (list(catalog.engines), catalog.ready()) == (["current"], True)
    (served / "current").unlink()
    for _ in range(2):
        catalog.refresh()
    assert list(catalog.engines) == []
    catalog.close()


def test_a_bundle_that_moves_is_served_from_where_it_is(bundle, tmp_path):
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
    shutil.copytree(bundle.path, tmp_path / "one" / "digits")
    catalog = Catalog(Settings(bundles=f"{tmp_path / 'one'}:{tmp_path / 'other'}", device="cpu"))
    catalog.load()
    (tmp_path / "one" / "digits").rename(tmp_path / "other" / "digits")
    for _ in range(4):
        catalog.refresh()
    assert list(catalog.engines) == ["digits"]
    served = catalog.engine("digits")
    shutil.copytree(bundle.path, tmp_path / "one" / "digits")
    catalog.refresh()
    shutil.rmtree(tmp_path / "one" / "digits")
    for _ in range(3):
        catalog.refresh()
    assert catalog.engine("digits") is served  # the other never took its place
    catalog.close()


def test_graphs_that_are_none_are_refused(bundle, tmp_path, caplog):
    contents = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    facts = bundle.manifest.model_dump(exclude={"files", "digest"})
    bundles.write(tmp_path / "broken", facts, contents | {"prior.onnx": b"not a graph"})
    catalog = Catalog(Settings(bundles=str(tmp_path / "broken"), device="cpu"))
    catalog.load()
    assert (list(catalog.engines), catalog.ready()) == ([], False)
    assert "cannot load a graph" in caplog.text
    catalog.close()


def test_no_request_is_dropped_while_bundles_are_swapped(catalog, folder):
    expected = catalog.engine("one").sample(2, seed=1)
    catalog.watch()

    def ask(_: int) -> bool:
        return np.array_equal(catalog.engine("one").sample(2, seed=1), expected)

    def served(licence: str) -> bool:
        assert all(pool.map(ask, range(20)))
        return catalog.engine("one").manifest.licence == licence

    with ThreadPoolExecutor(4) as pool:
        engines = set()
        for k in range(5):
            bundles.annotate(Bundle.load(folder / "one"), licence=f"number {k}")
            wait_until(lambda licence=f"number {k}": served(licence), 20, "the bundle is replaced", pause=0)
            engines.add(catalog.engine("one"))
    assert len(engines) == 5


def started(folder: Path, **settings: object) -> Catalog:
    catalog = Catalog(Settings(bundles=str(folder), device="cpu", **settings))
    catalog.load()
    return catalog


def test_a_new_bundle_never_becomes_the_default(folder):
    running = started(folder)
    shutil.copytree(folder / "one", folder / "a-new-one")
    running.refresh()
    assert list(running.engines) == ["a-new-one", "one"]
    restarted = started(folder)
    for catalog in (running, restarted):
        assert catalog.default() == ("one", "default.txt names it")
        assert catalog.engine() is catalog.engine("one")
        catalog.close()


def test_a_default_that_cannot_be_written_stays_while_the_server_runs(folder):
    (folder / "default.txt").mkdir()  # a folder of this name can be neither read nor written as a file
    catalog = started(folder)
    shutil.copytree(folder / "one", folder / "a-new-one")
    catalog.refresh()
    assert catalog.default().name == "one"
    assert "first by name" in catalog.default().reason
    catalog.close()


@pytest.mark.parametrize("text", ["two", "two\n", "\ufefftwo\r\n"])
def test_the_default_changes_when_somebody_says_so(folder, text):
    shutil.copytree(folder / "one", folder / "two")
    catalog = started(folder)
    assert catalog.default().name == "one"
    (folder / "default.txt").write_text(text)
    catalog.refresh()
    assert catalog.default() == ("two", "default.txt names it")
    catalog.close()
    named = started(folder, default_model="one")
    assert named.default() == ("one", "RAE_SERVE_DEFAULT_MODEL names it")
    assert (folder / "default.txt").read_text() == text.replace("\r\n", "\n")
    named.close()


def test_a_default_that_is_removed_is_the_default_again_when_it_comes_back(folder, tmp_path):
    shutil.copytree(folder / "one", folder / "two")
    catalog = started(folder)
    (folder / "one").rename(tmp_path / ".one")
    for _ in range(2):
        catalog.refresh()
    assert catalog.default().name == "two"
    assert "first by name" in catalog.default().reason
    (tmp_path / ".one").rename(folder / "one")
    catalog.refresh()
    assert catalog.default().name == "one"
    catalog.close()


def test_a_default_that_is_damaged_is_named(folder):
    shutil.copytree(folder / "one", folder / "two")
    (folder / "default.txt").write_text("two")
    (folder / "two" / "prior.onnx").write_bytes(b"")
    for settings in ({}, {"default_model": "two"}):
        catalog = started(folder, **settings)
        with pytest.raises(NotFound, match="the default model 'two' is not loaded; name another model, one of: one"):
            catalog.engine()
        catalog.close()


@pytest.mark.parametrize("name", [b"caf\xe9", b"line\nbreak", b"\x7f", "\x85".encode(), b"\xed\xa0\x80"])
def test_a_folder_whose_name_no_address_can_hold_is_refused(folder, name, caplog):
    shutil.copytree(folder / "one", folder / os.fsdecode(name))
    catalog = started(folder)
    assert (list(catalog.engines), catalog.ready()) == (["one"], True)
    (record,) = [record for record in caplog.records if "is refused" in record.message]
    assert f"the name '{printable(os.fsdecode(name))}' cannot stand in an address" in record.message
    record.message.encode()  # it has no lone surrogate
    client = TestClient(RequestMiddleware(create_app(catalog), catalog.settings))
    assert [model["name"] for model in client.get("/v1/models").json()["models"]] == ["one"]
    assert "the models are: one" in client.get("/v1/models/unknown").json()["detail"]
    catalog.refresh()
    assert caplog.text.count("is refused") == 1
    catalog.close()


@pytest.mark.parametrize("name", ["数字", "a b", "100%", "a?b#c", "a\\b", "é", "नमस्‍ते", "'\""])
def test_a_folder_with_any_other_name_is_served(folder, name):
    (folder / "one").rename(folder / name)
    catalog = started(folder)
    client = TestClient(RequestMiddleware(create_app(catalog), catalog.settings))
    (listed,) = client.get("/v1/models").json()["models"]
    assert listed["name"] == name
    assert client.get(f"/v1/models/{quote(name, safe='')}/images/1/2.png").status_code == 200
    catalog.close()


def test_an_overwritten_bundle_is_swapped_once_and_never_seen_in_part(folder, bundle):
    contents = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    facts = bundle.manifest.model_dump(exclude={"files", "digest"})
    quick = Catalog(Settings(bundles=str(folder), device="cpu", reload_seconds=0.02))
    quick.load()
    quick.watch()
    taken, refused = (metrics.RELOADS.labels(outcome)._value for outcome in ("taken", "refused"))
    before = taken.get(), refused.get()
    for k in range(10):
        bundles.write(folder / "one", facts | {"licence": f"number {k}"}, contents, overwrite=True)
        wait_until(lambda k=k: quick.engine("one").manifest.licence == f"number {k}", 20, "the bundle is replaced")
    quick.close()
    assert (taken.get() - before[0], refused.get() - before[1]) == (10, 0)
    assert sorted(path.name for path in folder.iterdir()) == ["default.txt", "one"]


def test_a_folder_that_changes_while_it_is_read_is_read_again(catalog, folder, caplog, monkeypatch):
    load, good = Bundle.load, catalog.engine("one")
    decoder = folder / "one" / "decoder.onnx"
    whole = decoder.read_bytes()
    decoder.write_bytes(whole[:-1])

    def mended_too_late(path: Path) -> Bundle:
        monkeypatch.undo()
        try:
            return load(path)
        finally:
            decoder.write_bytes(whole)

    monkeypatch.setattr(Bundle, "load", mended_too_late)
    catalog.refresh()
    assert catalog.engine("one") is good
    assert "refused" not in caplog.text
    catalog.refresh()
    assert catalog.engine("one") is not good
