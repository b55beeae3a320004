"""Bundles that are pushed to a fake of the Hugging Face Hub, and pulled from it."""

from __future__ import annotations

import shutil
import sys

import huggingface_hub
import pytest
from huggingface_hub import constants

from rae_serve.bundle import CARD, Bundle
from rae_serve.card import model_card
from rae_serve.manifest import MANIFEST, Figure, to_json
from tests.fake_hub import TOKEN, fake_hub
from tests.serving import ROOT


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The fake hub. huggingface_hub read the environment when it was imported, so its constants are set instead."""
    with fake_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        files = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the fake has the older transfer only
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield hub


@pytest.fixture
def pushed(hub, bundle, command):
    """The fake hub, after a bundle has been pushed."""
    assert command("push", bundle.path, "me/digits")[0] == 0
    return hub


def test_what_is_pulled_is_what_was_pushed(hub, bundle, command, tmp_path):
    copy = shutil.copytree(bundle.path, tmp_path / "digits")
    (copy / "notes.txt").write_text("not a file of the bundle")
    status, out, err = command("push", copy, "me/digits")
    assert (status, err) == (0, "")
    assert out.startswith(f"{hub.address}/me/digits/commit/")
    status, out, _ = command("pull", "me/digits", "--out", tmp_path / "mine")
    assert status == 0
    assert bundle.manifest.digest in out
    assert Bundle.load(tmp_path / "mine").contents == bundle.contents
    expected = {*bundle.contents, MANIFEST, CARD}
    assert {file.name for file in (tmp_path / "mine").iterdir()} == expected
    assert hub.files["me/digits", "main"].keys() == {*expected, ".gitattributes"}
    assert hub.large.keys() == {bundle.manifest.files[name].sha256 for name in bundle.contents if "onnx" in name}
    assert hub.private == {"me/digits": False}


def test_a_branch_and_a_private_repository(hub, bundle, command, tmp_path):
    assert command("push", bundle.path, "me/secret", "--private", "--revision", "next")[0] == 0
    assert hub.private == {"me/secret": True}
    assert MANIFEST not in hub.files["me/secret", "main"]
    assert command("pull", "me/secret", "--revision", "next", "--out", tmp_path / "mine")[0] == 0
    assert Bundle.load(tmp_path / "mine").manifest.digest == bundle.manifest.digest


def test_a_damaged_bundle_is_not_pushed(hub, bundle, fails, tmp_path):
    copy = shutil.copytree(bundle.path, tmp_path / "copy")
    (copy / "prior.onnx").write_bytes(b"damaged")
    fails(["push", copy, "me/digits"], "prior.onnx is damaged")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("decoder.onnx", b"damaged", "decoder.onnx is damaged"),
        ("decoder.onnx", None, "me/digits is not complete: it has no decoder.onnx"),
        (MANIFEST, b"{}", "is not a bundle's manifest"),
        (MANIFEST, None, "me/digits is not a bundle: it has no manifest.json"),
    ],
)
def test_what_is_damaged_leaves_nothing(pushed, fails, tmp_path, name, content, message):
    if content is None:
        del pushed.files["me/digits", "main"][name]
    else:
        pushed.files["me/digits", "main"][name] = content
    fails(["pull", "me/digits", "--out", tmp_path / "mine"], message)
    assert not list(tmp_path.glob("*mine*")) + list(tmp_path.glob(".draft*"))


def test_no_file_is_written_outside_the_folder(pushed, bundle, fails, tmp_path):
    listed = bundle.manifest.files | {"../stolen": bundle.manifest.files["prior.onnx"]}
    manifest = to_json(bundle.manifest.model_copy(update={"files": listed}))
    pushed.files["me/digits", "main"] |= {MANIFEST: manifest.encode(), "../stolen": bundle.contents["prior.onnx"]}
    fails(["pull", "me/digits", "--out", tmp_path / "mine"], "../stolen")
    assert not (tmp_path / "stolen").exists()


def test_a_bundle_is_replaced_only_with_overwrite(pushed, bundle, command, fails, tmp_path):
    mine = shutil.copytree(bundle.path, tmp_path / "mine")
    (mine / "mark.txt").touch()
    pull = ["pull", "me/digits", "--out", mine]
    fails(pull, "mine holds a bundle; --overwrite replaces it")
    pushed.files["me/digits", "main"]["decoder.onnx"] = b"damaged"
    fails([*pull, "--overwrite"], f"{pushed.address}/me/digits/decoder.onnx is damaged")
    assert (mine / "mark.txt").exists()
    pushed.files["me/digits", "main"]["decoder.onnx"] = bundle.contents["decoder.onnx"]
    assert command(*pull, "--overwrite")[0] == 0
    assert {file.name for file in mine.iterdir()} == {*bundle.contents, MANIFEST, CARD}


def test_a_used_folder_is_refused_before_the_download(pushed, fails, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    pushed.requests.clear()
    fails(["pull", "me/digits", "--out", tmp_path / "mine"], "is in use")
    assert pushed.requests == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pull", "me/nothing", "--out", "x"], "there is no repository me/nothing"),
        (["pull", "me/digits", "--revision", "v9", "--out", "x"], "has no revision 'v9'"),
        (["pull", "me/..", "--out", "x"], "must be OWNER/NAME, not 'me/..'"),
        (["pull", "digits", "--out", "x"], "must be OWNER/NAME, not 'digits'"),
        (["pull", "me/digits", "--out", ""], "must name a file or folder"),
    ],
)
def test_a_wrong_name_is_one_error(pushed, fails, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(words, message)
    assert not (tmp_path / "x").exists()


def test_a_push_without_a_token_is_refused(hub, bundle, fails, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    fails(["push", bundle.path, "me/digits"], hub.address, "needs a token", "HF_TOKEN")
    assert hub.requests == []


def test_a_wrong_token_is_one_error(hub, bundle, fails, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "another")
    fails(["push", bundle.path, "me/digits"], hub.address, "401", "HF_TOKEN")
    assert hub.files == {}


def test_a_missing_extra_is_one_error(bundle, fails, monkeypatch):
    monkeypatch.delitem(sys.modules, "rae_serve.hub", raising=False)
    monkeypatch.delattr("rae_serve.hub", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    fails(["push", bundle.path, "me/digits"], "this needs huggingface_hub", "[hub]")


@pytest.mark.parametrize("words", [["pull", "me/digits", "--out"], ["push"]])
def test_a_hub_that_fails_is_one_error(pushed, fails, bundle, tmp_path, words):
    words = [*words, tmp_path / "mine"] if words[0] == "pull" else ["push", bundle.path, "me/digits"]
    pushed.broken = 418
    fails(words, pushed.address, "status 418")
    assert not (tmp_path / "mine").exists()


def test_a_hub_that_is_gone_is_one_error(bundle, fails, tmp_path, monkeypatch):
    with fake_hub() as hub:
        address = hub.address
    monkeypatch.setattr(constants, "ENDPOINT", address)
    fails(["pull", "me/digits", "--out", tmp_path / "mine"], address, "failed (")


@pytest.mark.parametrize(
    ("licence", "data", "expected"),
    [
        ("CC-BY-SA-3.0", "mnist", {"license": "cc-by-sa-3.0", "datasets": ["ylecun/mnist"]}),
        ("unspecified", "digits", {"license": "unknown", "datasets": None}),
        ("Ours: ask “us”\n", "mine", {"license": "other", "license_name": "ours-ask-us", "datasets": None}),
    ],
)
def test_the_front_matter_of_a_card_is_the_hubs(bundle, licence, data, expected):
    training = bundle.manifest.training.model_copy(update={"data": data})
    quality = {"fd_generated": Figure(value=3.5, protocol="of the tests")}
    manifest = bundle.manifest.model_copy(update={"licence": licence, "training": training, "quality": quality})
    card = huggingface_hub.ModelCard(model_card(manifest, bundle.name))
    found = card.data.to_dict()
    assert {key: found.get(key) for key in expected} == expected
    assert found["library_name"] == "rae-serve"
    assert found["pipeline_tag"] == "unconditional-image-generation"
    assert {"onnx", bundle.manifest.model.kind} <= set(found["tags"])
    assert found["metrics"] == ["fd_generated"]
    assert card.text.lstrip().startswith(f"# {bundle.name}")


@pytest.mark.parametrize("folder", sorted((ROOT / "exported").glob("*/")), ids=lambda folder: folder.name)
def test_the_shipped_cards_are_up_to_date(folder):
    shipped = Bundle.load(folder)
    assert (folder / CARD).read_text() == model_card(shipped.manifest, shipped.name)
