from __future__ import annotations

import base64
import gzip
import io
import shutil
import zipfile
import zlib
from urllib.parse import unquote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from rae_serve import images, png, projection
from rae_serve.batching import MicroBatcher
from rae_serve.bundle import Bundle
from rae_serve.engine import Engine
from rae_serve.errors import BundleError, InvalidInput, Overloaded
from rae_serve.server.app import create_app
from rae_serve.server.catalog import Catalog
from rae_serve.server.middleware import RequestMiddleware
from rae_serve.server.problems import ProblemMiddleware
from rae_serve.server.settings import Settings
from rae_serve.server.short_path import ShortPath

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", params=["app", "short path"])
def app(request: pytest.FixtureRequest, bundle: Bundle) -> RequestMiddleware:
    """The service, without and with the short path: the tests cannot tell one from the other."""
    catalog = Catalog(Settings(bundles=str(bundle.path), device="cpu", max_images=100))
    catalog.load()
    app = create_app(catalog)
    return RequestMiddleware(ShortPath(app, catalog) if request.param == "short path" else app, catalog.settings)


@pytest.fixture(scope="module")
def client(app: RequestMiddleware) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def problem(response, status: int) -> dict:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


def test_models_are_listed_and_shown(client, bundle):
    listed = client.get("/v1/models").json()
    (summary,) = listed["models"]
    assert listed["default"] == "digits"
    assert listed["default_reason"]
    assert summary == {
        "name": "digits",
        "digest": bundle.manifest.digest,
        "kind": "flexae",
        "default": True,
        "shape": [8, 8, 1],
        "latent_dim": 8,
        "noise_dim": 8,
    }
    shown = client.get("/v1/models/digits").json()
    assert shown["manifest"] == bundle.manifest.model_dump(mode="json")


def test_the_map_of_a_model_is_shown(client, bundle, engine, tmp_path):
    assert "no map" in problem(client.get("/v1/models/digits/map"), 404)["detail"]
    mapped = Engine(Bundle.load(shutil.copytree(bundle.path, tmp_path / "mapped")), device="cpu")
    projection.annotate(mapped, RNG.normal(size=(20, 8)), ["odd"], np.arange(20)[:, None] % 2 == 1)
    mapped.close()
    catalog = Catalog(Settings(bundles=str(tmp_path / "mapped"), device="cpu"))
    catalog.load()
    shown = TestClient(create_app(catalog)).get("/v1/models/mapped/map").json()
    assert shown == Bundle.load(tmp_path / "mapped").map().model_dump(mode="json")
    assert shown["labels"] == [[], [0]] * 10
    catalog.close()


def test_every_format_and_address_shows_the_same_pixels(client, bundle, engine):
    expected = engine.sample(6, seed=7, offset=3)

    def sample(format_: str):
        response = client.post("/v1/sample", json={"n": 6, "seed": 7, "offset": 3, "format": format_})
        assert response.status_code == 200
        assert response.headers["rae-seed"] == "7"
        assert response.headers["rae-model"] == "digits"
        assert response.headers["rae-digest"] == bundle.manifest.digest
        assert response.headers["content-type"] == images.MEDIA_TYPES[format_]
        return response

    grid = images.grid(expected)[..., 0]
    assert np.array_equal(pixels_of(sample("png").content), grid)
    assert np.array_equal(pixels_of(sample("webp").content)[..., 0], grid)
    assert np.abs(pixels_of(sample("jpeg").content).astype(int) - grid).mean() < 8
    assert np.array_equal(np.load(io.BytesIO(sample("npy").content)), expected)
    with zipfile.ZipFile(io.BytesIO(sample("zip").content)) as archive:
        assert archive.namelist() == [f"7-{i:06d}.png" for i in range(3, 9)]
        assert np.array_equal([pixels_of(archive.read(name)) for name in archive.namelist()], expected[..., 0])
    document = sample("json").json()
    assert document["seed"] == 7
    assert document["offset"] == 3
    assert np.array_equal([pixels_of(base64.b64decode(i)) for i in document["images"]], expected[..., 0])
    for i, image in enumerate(expected, 3):
        for address in ("", f"/digests/{bundle.manifest.digest}"):
            response = client.get(f"/v1/models/digits{address}/images/7/{i}.png")
            assert np.array_equal(pixels_of(response.content), image[..., 0])


def test_one_image_is_no_grid_and_a_drawn_seed_comes_back(client, engine):
    response = client.post("/v1/sample", json={})
    seed = int(response.headers["rae-seed"])
    assert np.array_equal(pixels_of(response.content), engine.sample(1, seed=seed)[0, ..., 0])


def test_what_needs_a_key_is_for_no_shared_cache(bundle):
    catalog = Catalog(Settings(bundles=str(bundle.path), device="cpu", api_keys=["some-key-1234567"]))
    catalog.load()
    alone = TestClient(RequestMiddleware(create_app(catalog), catalog.settings))
    key = {"Authorization": "Bearer some-key-1234567"}
    answer = alone.get("/v1/models/digits/images/1/2.png", headers=key)
    assert answer.headers["cache-control"] == "private, max-age=60"
    catalog.close()


def test_a_model_may_have_any_name(bundle, tmp_path):
    shutil.copytree(bundle.path, tmp_path / "数字")
    catalog = Catalog(Settings(bundles=str(tmp_path), device="cpu"))
    catalog.load()
    alone = TestClient(RequestMiddleware(create_app(catalog), catalog.settings))
    answer = alone.post("/v1/sample", json={"model": "数字", "seed": 1})
    assert answer.status_code == 200
    assert unquote(answer.headers["rae-model"]) == "数字"
    catalog.close()


def test_a_form_of_no_known_charset_is_refused(client):
    kind = "multipart/form-data; boundary=x; charset=undefined"
    body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\nabc\r\n--x--\r\n'
    answer = client.post("/v1/encode", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert "charset" in answer.json()["detail"]


def test_caches_are_told_how_long(client, bundle):
    short = client.get("/v1/models/digits/images/1/2.png")
    assert "max-age=60" in short.headers["cache-control"]
    long = client.get(f"/v1/models/digits/digests/{bundle.manifest.digest}/images/1/2.png")
    assert "immutable" in long.headers["cache-control"]
    assert all("public" in answer.headers["cache-control"] for answer in (short, long))
    etag = short.headers["etag"]
    assert etag == long.headers["etag"] != client.get("/v1/models/digits/images/1/3.png").headers["etag"]
    for known in (etag, f'W/{etag}, "x"', "*"):
        again = client.get("/v1/models/digits/images/1/2.png", headers={"If-None-Match": known})
        assert again.status_code == 304
        assert again.content == b""
    assert client.get("/v1/models/digits/images/1/2.png", headers={"If-None-Match": '"x"'}).status_code == 200


def test_servers_that_make_other_bytes_of_an_image_have_other_etags(client, monkeypatch):
    address = "/v1/models/digits/images/1/2.png"
    first = client.get(address)
    monkeypatch.setattr(png, "compressor", png.Deflate("zlib at level 0", lambda data: zlib.compress(data, 0)))
    monkeypatch.setattr(png, "REVISION", png.revision())
    second = client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert second.status_code == 200
    assert second.content != first.content
    assert second.headers["etag"] != first.headers["etag"]
    assert np.array_equal(pixels_of(second.content), pixels_of(first.content))
    assert client.get(address, headers={"If-None-Match": second.headers["etag"]}).status_code == 304


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("n", {"n": 0}),
        ("n", {"n": -1}),
        ("n", {"n": 10**9}),
        ("n", {"n": 101}),
        ("n", {"n": "4"}),
        ("n", {"n": True}),
        ("n", {"n": 1.5}),
        ("n", {"n": None}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**53}),
        ("seed", {"seed": "7"}),
        ("offset", {"offset": -1}),
        ("offset", {"offset": 2**53 - 1, "n": 2}),
        ("temperature", {"temperature": -0.5}),
        ("temperature", {"temperature": 11}),
        ("temperature", {"temperature": "hot"}),
        ("format", {"format": "gif"}),
        ("surprise", {"surprise": 1}),
        ("model", {"model": 3}),
        ("body", [1, 2]),
    ],
)
def test_a_field_that_does_not_fit_is_named(client, field, body):
    document = problem(client.post("/v1/sample", json=body), 422)
    assert field in [error["field"] for error in document["errors"]]
    assert document["detail"].startswith(field)


def test_what_json_cannot_say_is_refused(client):
    headers = {"content-type": "application/json"}
    problem(client.post("/v1/sample", content=b"{nothing", headers=headers), 400)
    problem(client.post("/v1/sample", content=b"\xff\xfe", headers=headers), 400)
    problem(client.post("/v1/sample", content=b'{"temperature": NaN}', headers=headers), 422)
    problem(client.post("/v1/sample", content=b'{"temperature": 1e999}', headers=headers), 422)
    problem(client.post("/v1/sample", data={"n": "4"}), 415)
    problem(client.post("/v1/sample"), 422)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/models/unknown", 404),
        ("GET", "/v1/models/..%2Fdigits", 404),
        ("GET", "/v1/models/unknown/images/1/1.png", 404),
        ("GET", f"/v1/models/digits/digests/{'0' * 64}/images/1/1.png", 404),
        ("GET", "/v1/models/digits/images/-1/1.png", 422),
        ("GET", "/v1/models/digits/images/1/x.png", 422),
        ("GET", f"/v1/models/digits/images/{2**53}/1.png", 422),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/sample", 405),
    ],
)
def test_addresses_that_are_wrong(client, method, path, status):
    problem(client.request(method, path), status)


@pytest.mark.parametrize(
    "text", ["7_0", "7.0", "+7", "-7", "007", "00", "%20" + "7", "7%20", "٧", "７", "0x7", "7e0", "9" * 5000]
)
def test_an_integer_in_an_address_has_one_form(client, bundle, text):
    for models in ("/v1/models/digits", f"/v1/models/digits/digests/{bundle.manifest.digest}"):
        for field, path in (("seed", f"{text}/3.png"), ("index", f"3/{text}.png")):
            document = problem(client.get(f"{models}/images/{path}"), 422)
            assert [error["field"] for error in document["errors"]] == [field]


def test_the_digits_of_an_address_may_be_percent_encoded(client):
    plain = client.get("/v1/models/digits/images/70/0.png")
    assert plain.status_code == 200
    assert client.get("/v1/models/digits/images/%37%30/%30.png").content == plain.content


def test_json_without_a_content_type_is_told_to_set_it(client):
    detail = problem(client.post("/v1/sample", content=b'{"n": 1}'), 415)["detail"]
    assert detail == "Content-Type is missing; set it to application/json"
    problem(client.post("/v1/sample", content=b"[]", headers={"Content-Type": "application/vnd.api+json"}), 422)


@pytest.mark.parametrize("path", ["/v1/sample", "/v1/encode", "/v1/decode"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "X-Gzip", "identity, gzip"])
def test_a_compressed_body_is_refused_by_name(client, path, coding):
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = client.post(path, content=gzip.compress(b"{}"), headers=headers)
    assert f"Content-Encoding {coding.lower()}" in problem(answer, 415)["detail"]
    assert answer.headers["accept-encoding"] == "identity"
    assert client.post("/v1/sample", json={}, headers={"Content-Encoding": "identity"}).status_code == 200


def test_an_unknown_model_is_answered_with_the_known(client):
    assert "digits" in problem(client.post("/v1/sample", json={"model": "unknown"}), 404)["detail"]


def test_a_full_queue_answers_429(client, monkeypatch):
    def full(*_):
        raise Overloaded(9, retry_after_s=1)

    monkeypatch.setattr(MicroBatcher, "submit", full)
    response = client.post("/v1/sample", json={})
    problem(response, 429)
    assert response.headers["retry-after"] == "1"


def test_an_error_of_ours_tells_nothing_of_the_inside(client, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(Engine, "submit_sample", broken)
    assert "secret" not in problem(client.post("/v1/sample", json={}), 500)["detail"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"plain", "plain"),
        (b'{"error": "e"}', "e"),
        (b'[{"error": "listed"}]', "listed"),
        (b'{"error": "v", "detail": [{"loc": ["n"], "msg": "is odd"}]}', "n: is odd"),
        (b"Not Found", "there is nothing at /x; /docs lists the addresses"),
    ],
)
def test_foreign_errors_leave_as_problems(body, detail):
    async def foreign(scope, receive, send):
        await send({"type": "http.response.start", "status": 418, "headers": [(b"Retry-After", b"3")]})
        await send({"type": "http.response.body", "body": body[:2], "more_body": True})
        await send({"type": "http.response.body", "body": body[2:]})

    response = TestClient(ProblemMiddleware(foreign)).get("/x")
    assert problem(response, 418)["detail"] == detail
    assert response.headers["retry-after"] == "3"


def test_the_openapi_document_names_every_answer(client):
    document = client.get("/openapi.json").json()
    sample = document["paths"]["/v1/sample"]["post"]["responses"]
    assert {"200", "400", "404", "415", "422", "429"} <= set(sample)
    assert "application/problem+json" in sample["422"]["content"]
    assert set(sample["200"]["content"]) == set(images.MEDIA_TYPES.values()) - {"image/gif"}


def test_catalogs_that_cannot_be(bundle, tmp_path):
    with pytest.raises(BundleError, match="no folder"):
        Catalog(Settings(bundles=str(tmp_path / "nothing"))).load()
    with pytest.raises(BundleError, match="no bundle in"):
        Catalog(Settings(bundles=str(tmp_path))).load()
    with pytest.raises(BundleError, match="two bundles"):
        Catalog(Settings(bundles=f"{bundle.path}:{bundle.path.parent}", device="cpu")).load()
    with pytest.raises(InvalidInput, match="DEFAULT_MODEL"):
        Catalog(Settings(bundles=str(bundle.path), default_model="other", device="cpu")).load()


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("RAE_SERVE_MAX_IMAGES", "7")
    assert Settings.from_environment().max_images == 7
    monkeypatch.setenv("RAE_SERVE_MAX_IMAGES", "many")
    with pytest.raises(InvalidInput, match=r"RAE_SERVE_MAX_IMAGES.*'many'"):
        Settings.from_environment()
