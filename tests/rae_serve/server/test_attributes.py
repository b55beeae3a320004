"""The endpoint that makes attributes of marked points."""

from __future__ import annotations

import base64
import shutil

import numpy as np
import pytest
from fastapi.testclient import TestClient

from rae_serve import attributes
from rae_serve import images as pictures
from rae_serve.bundle import Bundle, annotate
from rae_serve.manifest import Attribute
from rae_serve.server.app import create_app
from rae_serve.server.catalog import Catalog
from rae_serve.server.middleware import RequestMiddleware
from rae_serve.server.settings import Settings


@pytest.fixture
def serve(bundle, tmp_path):
    """Serve a copy of the small bundle with these settings; return a client and the catalog."""
    catalogs = []

    def start(**settings: object) -> tuple[TestClient, Catalog]:
        shutil.copytree(bundle.path, tmp_path / "digits", dirs_exist_ok=True)
        catalog = Catalog(Settings(bundles=str(tmp_path), device="cpu", max_images=20, **settings))
        catalogs.append(catalog)
        catalog.load()
        client = TestClient(RequestMiddleware(create_app(catalog), catalog.settings), raise_server_exceptions=False)
        return client, catalog

    yield start
    for catalog in catalogs:
        catalog.close()


def seeds(seed: int, count: int) -> list[dict[str, int]]:
    return [{"seed": seed, "index": row} for row in range(count)]


def errors(answer) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    return {error["field"]: error["problem"] for error in answer.json()["errors"]}


def test_marked_points_give_a_direction_and_how_good_it_is(serve, engine):
    client, _ = serve()
    picture = engine.sample(1, seed=9)[0]
    noise = np.concatenate([engine.noise(5, seed=1), engine.noise(6, seed=2)])
    codes = engine.latents(noise)
    encoded = base64.b64encode(pictures.encode(picture)).decode()
    asked = {"has": [*seeds(1, 5), {"image": encoded}], "lacks": [{"latent": codes[5].tolist()}, *seeds(2, 6)[1:]]}
    answer = client.post("/v1/attributes", json=asked).json()
    latents = np.concatenate([codes[:5], engine.encode([picture]), codes[5:]]).astype(np.float64)
    expected = attributes.find_in(latents, (np.arange(12) < 6)[:, None], ["x"], "a user's choice")["x"]
    assert np.allclose(answer["attribute"].pop("direction"), expected.direction, atol=1e-5)
    assert answer["attribute"] == expected.model_dump(mode="json", exclude={"direction"})
    assert answer["attribute"]["images"] == [6, 6]
    assert np.allclose(answer["latents"], latents, atol=1e-5)
    assert (answer["model"], answer["digest"]) == ("digits", engine.manifest.digest)
    assert answer["doubt"] == attributes.doubt(expected)
    assert answer["can_keep"] is False


@pytest.mark.parametrize(
    ("auc", "images", "begins"),
    [
        (None, (4, 9), "Not measured: this needs at least 5"),
        (0.74, (30, 30), "Weak: below an AUC of 0.75"),
        (0.9, (30, 19), "Measured roughly: with fewer than 20"),
        (0.75, (20, 20), None),
        (0.9, None, None),
    ],
)
def test_what_speaks_against_a_direction_is_said(auc, images, begins):
    doubt = attributes.doubt(Attribute(direction=[1.0], source="by hand", auc=auc, images=images))
    assert doubt is None if begins is None else doubt.startswith(begins)


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("has", {"has": seeds(1, 1), "lacks": seeds(2, 5)}),
        ("lacks", {"has": seeds(1, 5), "lacks": []}),
        ("lacks", {"has": seeds(1, 5), "lacks": seeds(2, 21)}),
        ("lacks.1.latent", {"has": seeds(1, 5), "lacks": [{"seed": 1}, {"latent": [1.0]}]}),
        ("lacks.1.latent", {"has": seeds(1, 5), "lacks": [{"seed": 1}, {"latent": [1e300] * 8}]}),
        ("has.0.image", {"has": [{"image": "?"}, {"seed": 1}], "lacks": seeds(2, 5)}),
        ("keep", {"has": seeds(1, 5), "lacks": seeds(2, 5), "keep": ""}),
        ("keep", {"has": seeds(1, 5), "lacks": seeds(2, 5), "keep": "two\nlines"}),
        ("keep", {"has": seeds(1, 5), "lacks": seeds(2, 5), "keep": "x" * 65}),
    ],
)
def test_a_field_that_does_not_fit_is_named(serve, field, body):
    client, _ = serve(keep_attributes=True)
    assert field in errors(client.post("/v1/attributes", json=body))


def test_an_attribute_is_kept_only_if_the_operator_allows_it(serve, tmp_path):
    client, _ = serve()
    before = (tmp_path / "digits" / "manifest.json").read_bytes()
    asked = {"has": seeds(1, 5), "lacks": seeds(2, 5), "keep": "round"}
    assert "RAE_SERVE_KEEP_ATTRIBUTES" in errors(client.post("/v1/attributes", json=asked))["keep"]
    assert (tmp_path / "digits" / "manifest.json").read_bytes() == before


def test_an_attribute_of_a_bundle_that_cannot_be_written_is_refused(serve, tmp_path, caplog):
    client, _ = serve(keep_attributes=True)
    lock = tmp_path / "digits" / ".attributes.lock"
    lock.mkdir()  # which nobody can write as a file, not even root
    asked = {"has": seeds(1, 5), "lacks": seeds(2, 5), "keep": "round"}
    assert "cannot write" in errors(client.post("/v1/attributes", json=asked))["keep"]
    assert str(lock.parent) in caplog.text
    assert Bundle.load(tmp_path / "digits").manifest.attributes == {}


def test_a_kept_attribute_edits_like_any_other_and_replaces_none(serve, tmp_path):
    client, catalog = serve(keep_attributes=True)
    bent = Attribute(direction=[0.5] * 8, source="by hand", opposite="straight")
    annotate(Bundle.load(tmp_path / "digits"), attributes={"bent": bent})  # the server has not read it yet
    asked = {"has": seeds(1, 5), "lacks": seeds(2, 5)}
    for taken in ("bent", "straight"):
        assert taken in errors(client.post("/v1/attributes", json={**asked, "keep": taken}))["keep"]
    answer = client.post("/v1/attributes", json={**asked, "keep": "round"})
    assert answer.json()["can_keep"] is True
    catalog.refresh()
    kept = catalog.engine("digits").manifest.attributes
    assert list(kept) == ["bent", "round"]
    assert kept["round"].model_dump(mode="json") == answer.json()["attribute"]
    edit = {"point": {"seed": 3}, "attribute": "round", "strengths": [1], "format": "json"}
    assert client.post("/v1/edit", json=edit).status_code == 200


def test_an_attribute_is_not_kept_in_another_model(serve, tmp_path, monkeypatch):
    client, catalog = serve(keep_attributes=True)
    engine = catalog.engine("digits")
    other = engine.manifest.model_copy(update={"digest": "0" * 64})
    monkeypatch.setattr(engine, "manifest", other)
    asked = {"has": seeds(1, 5), "lacks": seeds(2, 5), "keep": "round"}
    assert "replaced" in errors(client.post("/v1/attributes", json=asked))["keep"]
    assert Bundle.load(tmp_path / "digits").manifest.attributes == {}
