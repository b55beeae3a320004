"""The endpoints that take pictures and latents."""

from __future__ import annotations

import base64
import io
import json
import shutil
import struct
import zlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageSequence

from rae_serve import bundle as bundles
from rae_serve import images
from rae_serve.bundle import Bundle
from rae_serve.manifest import Attribute
from rae_serve.preprocessing import read_picture
from rae_serve.server.app import create_app
from rae_serve.server.catalog import Catalog
from rae_serve.server.middleware import RequestMiddleware
from rae_serve.server.settings import Settings


@pytest.fixture(scope="module")
def client(bundle, tmp_path_factory):
    folder = Path(shutil.copytree(bundle.path, tmp_path_factory.mktemp("edited") / "digits"))
    bent = Attribute(direction=[0.5] * 8, source="by hand", opposite="straight")
    bundles.annotate(Bundle.load(folder), attributes={"bent": bent})
    limits = {"max_images": 20, "max_body_bytes": 100_000, "max_pixels": 10_000}
    catalog = Catalog(Settings(bundles=str(folder), device="cpu", **limits))
    catalog.load()
    yield TestClient(RequestMiddleware(create_app(catalog), catalog.settings), raise_server_exceptions=False)
    catalog.close()


@pytest.fixture(scope="module")
def pictures(engine):
    return engine.sample(3, seed=9)


@pytest.fixture(scope="module")
def codes(engine, pictures):
    return engine.encode(pictures)


def b64(image: np.ndarray) -> str:
    return base64.b64encode(images.encode(image)).decode()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def problem(response, status: int) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()


def fields(response) -> list[str]:
    return [error["field"] for error in problem(response, 422)["errors"]]


def test_pictures_are_encoded_however_they_come(client, bundle, pictures, codes):
    raw = client.post("/v1/encode", content=images.encode(pictures[0]), headers={"content-type": "image/png"})
    document = raw.json()
    assert document["digest"] == bundle.manifest.digest
    assert document["active"] == bundle.manifest.latent.active
    assert np.array_equal(np.array(document["latents"], np.float32), codes[:1])
    form = client.post("/v1/encode", files=[("images", ("a.png", images.encode(image))) for image in pictures])
    assert np.array_equal(np.array(form.json()["latents"], np.float32), codes)
    listed = client.post("/v1/encode?format=npy", json={"images": [b64(image) for image in pictures]})
    assert listed.headers["content-type"] == "application/x-npy"
    assert np.array_equal(np.load(io.BytesIO(listed.content)), codes)
    inside = client.post("/v1/encode", json={"images": [b64(pictures[0])], "format": "npy", "model": "digits"})
    assert np.array_equal(np.load(io.BytesIO(inside.content)), codes[:1])


def test_base64_comes_as_programs_write_it(client, pictures, codes):
    jpeg = io.BytesIO()
    Image.fromarray(pictures[0, ..., 0]).save(jpeg, "JPEG")
    for data in (images.encode(pictures[0]), images.encode(pictures[0]) + b"+", jpeg.getvalue()):
        plain = base64.b64encode(data).decode()
        wrapped = base64.encodebytes(data).decode()
        forms = [
            f"data:image/png;base64,{plain}",
            f"DATA:image/jpeg;charset=x;BASE64,{wrapped}",
            f"data:;base64,{quote(plain, safe='')}",
            wrapped,
            wrapped.replace("\n", "\r\n\t"),
            f"  {plain}\n",
            base64.urlsafe_b64encode(data).decode(),
            base64.urlsafe_b64encode(data).decode().rstrip("="),
            plain.rstrip("="),
        ]
        expected = client.post("/v1/encode", json={"images": [plain]}).json()["latents"]
        assert client.post("/v1/encode", json={"images": forms}).json()["latents"] == expected * len(forms)
        asked = {"end": {"latent": codes[1].tolist()}, "steps": 2, "format": "npy"}
        points = [client.post("/v1/interpolate", json={"start": {"image": form}, **asked}).content for form in forms]
        assert len(set(points)) == 1


@pytest.mark.parametrize(
    "text", ["?", "http://x/y.png", "data:image/png,abcd", "data:text/plain", "ab cd", "abcde", "é", "="]
)
def test_what_is_no_base64_is_refused(client, text):
    detail = problem(client.post("/v1/encode", json={"images": [text]}), 422)["detail"]
    assert detail == "images.0: is not base64"


@pytest.mark.parametrize(
    "content_type",
    ["image/jpg", "image/pjpeg", "image/x-png", "image/x-ms-bmp", "image/x-windows-bmp", "image/tif", "IMAGE/JPEG",
     "image/jpeg; q=1", " image/JPG ;name=x", "application/octet-stream"],
)  # fmt: skip
def test_picture_types_have_many_names(client, pictures, codes, content_type):
    answer = client.post("/v1/encode", content=images.encode(pictures[0]), headers={"content-type": content_type})
    assert np.array_equal(np.array(answer.json()["latents"], np.float32), codes[:1])


@pytest.mark.parametrize("content_type", ["image/*", "image/svg+xml", "image", "text/plain", "x-image/png", "jpeg"])
def test_what_is_no_picture_type_is_refused(client, pictures, content_type):
    answer = client.post("/v1/encode", content=images.encode(pictures[0]), headers={"content-type": content_type})
    assert problem(answer, 415)["detail"].startswith(f"Content-Type is {content_type}; set it to image/png or ")


def test_json_may_have_a_type_of_its_own(client, pictures, codes):
    body = json.dumps({"images": [b64(pictures[0])]})
    for content_type in ("application/ld+json", "Application/JSON; charset=utf-8"):
        answer = client.post("/v1/encode", content=body, headers={"content-type": content_type})
        assert np.array_equal(np.array(answer.json()["latents"], np.float32), codes[:1])


def test_a_form_names_its_model_and_its_format(client, pictures, codes):
    file = {"images": ("a.png", images.encode(pictures[0]))}
    named = client.post("/v1/encode", data={"model": "digits", "format": "npy"}, files=file)
    assert np.array_equal(np.load(io.BytesIO(named.content)), codes[:1])
    assert client.post("/v1/encode?format=json", data={"format": "npy"}, files=file).content == named.content
    assert client.post("/v1/reconstruct", data={"format": "webp"}, files=file).headers["content-type"] == "image/webp"
    problem(client.post("/v1/encode", data={"model": "unknown"}, files=file), 404)
    assert fields(client.post("/v1/encode", data={"format": "png"}, files=file)) == ["format"]
    assert "seed: must be a file" in problem(client.post("/v1/encode", data={"seed": "1"}, files=file), 400)["detail"]


def test_a_picture_of_any_size_is_preprocessed(client, bundle, engine):
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    buffer = io.BytesIO()
    large.save(buffer, "JPEG")
    answer = client.post("/v1/encode", content=buffer.getvalue(), headers={"content-type": "image/jpeg"})
    expected = engine.encode(bundle.manifest.image(read_picture(buffer.getvalue()))[None])
    assert np.array_equal(np.array(answer.json()["latents"], np.float32), expected)


def test_latents_are_decoded_in_every_format(client, engine, codes):
    expected = engine.decode(codes)
    asked = {"latents": codes.tolist()}
    assert np.array_equal(pixels_of(client.post("/v1/decode", json=asked).content), images.grid(expected)[..., 0])
    npy = client.post("/v1/decode", json={**asked, "format": "npy"})
    assert np.array_equal(np.load(io.BytesIO(npy.content)), expected)
    listed = client.post("/v1/decode", json={**asked, "format": "json"}).json()["images"]
    assert np.array_equal([pixels_of(base64.b64decode(i)) for i in listed], expected[..., 0])


def test_preparation_shows_what_is_encoded(client, bundle):
    vectors = bundle.vectors()["pictures"][2:7]
    files = [base64.b64decode(one["file"]) for one in vectors]
    wanted = np.stack([np.frombuffer(base64.b64decode(one["pixels"]), np.uint8).reshape(8, 8, 1) for one in vectors])
    form = client.post("/v1/prepare?format=npy", files=[("images", data) for data in files])
    assert np.array_equal(np.load(io.BytesIO(form.content)), wanted)
    one = client.post("/v1/prepare", content=files[0], headers={"content-type": "image/png"})
    assert one.headers["content-type"] == "image/png"
    assert np.array_equal(pixels_of(one.content), wanted[0, ..., 0])
    listed = client.post("/v1/prepare", json={"images": [one["file"] for one in vectors], "format": "json"})
    assert [pixels_of(base64.b64decode(text)).tolist() for text in listed.json()["images"]] == wanted[..., 0].tolist()
    assert fields(client.post("/v1/prepare", json={"images": ["?"]})) == ["images.0"]
    assert fields(client.post("/v1/prepare?format=gif", json={"images": [vectors[0]["file"]]})) == ["format"]


def test_reconstruction_is_encoding_and_decoding(client, engine, pictures):
    answer = client.post("/v1/reconstruct?format=npy", files=[("images", images.encode(image)) for image in pictures])
    assert np.array_equal(np.load(io.BytesIO(answer.content)), engine.reconstruct(pictures))


@pytest.mark.parametrize("space", ["latent", "noise"])
@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_interpolations_between_seeds(client, engine, space, path):
    ends = engine.noise(2, seed=7)
    ends = ends if space == "noise" else engine.latents(ends)
    expected = engine.interpolate(*ends, 5, space=space, path=path)
    asked = {"start": {"seed": 7}, "end": {"seed": 7, "index": 1}, "steps": 5, "space": space, "path": path}
    strip = client.post("/v1/interpolate", json=asked)
    assert np.array_equal(pixels_of(strip.content), images.grid(expected, columns=5)[..., 0])
    npy = client.post("/v1/interpolate", json={**asked, "format": "npy"})
    assert np.array_equal(np.load(io.BytesIO(npy.content)), expected)
    document = client.post("/v1/interpolate", json={**asked, "format": "json"}).json()
    assert np.array_equal(engine.decode(document["latents"]), expected)
    for format_, kind in (("gif", "image/gif"), ("webp-animation", "image/webp")):
        animated = client.post("/v1/interpolate", json={**asked, "format": format_})
        assert animated.headers["content-type"] == kind
        frames = [
            np.asarray(f.convert("L")) for f in ImageSequence.Iterator(Image.open(io.BytesIO(animated.content)))
        ]
        # equal neighbours may be stored as one longer frame
        assert 2 <= len(frames) <= 5
        assert np.array_equal(frames[0], expected[0, ..., 0])
        assert np.array_equal(frames[-1], expected[-1, ..., 0])


def test_a_seed_of_a_point_may_have_a_temperature(client, engine):
    start = {"seed": 7, "index": 2, "temperature": 0.5}
    asked = {"start": start, "end": {"seed": 8}, "steps": 4, "space": "noise", "format": "npy"}
    answer = client.post("/v1/interpolate", json=asked)
    ends = engine.noise(1, seed=7, offset=2, temperature=0.5)[0], engine.noise(1, seed=8)[0]
    assert np.array_equal(np.load(io.BytesIO(answer.content)), engine.interpolate(*ends, 4, space="noise"))
    hot = client.post("/v1/interpolate", json={**asked, "start": {**start, "temperature": 11}})
    assert problem(hot, 422)["errors"][0]["field"] == "start.temperature"


def test_an_animation_can_go_back_and_has_a_frame_rate(client):
    asked = {"start": {"seed": 7}, "end": {"seed": 8}, "steps": 5, "format": "gif"}
    plain, smooth = (
        client.post("/v1/interpolate", json={**asked, **more}).content
        for more in ({}, {"frame_rate": 25, "there_and_back": True})
    )
    assert [
        sum(f.info["duration"] for f in ImageSequence.Iterator(Image.open(io.BytesIO(data))))
        for data in (plain, smooth)
    ] == [500, 8 * 40]
    fast = client.post("/v1/interpolate", json={**asked, "frame_rate": 1000})
    assert problem(fast, 422)["errors"][0]["field"] == "frame_rate"


def test_a_point_is_a_seed_a_latent_or_an_image(client, engine, pictures, codes):
    asked = {"end": {"latent": codes[1].tolist()}, "steps": 4, "format": "npy"}
    for start in ({"image": b64(pictures[0])}, {"latent": codes[0].tolist()}):
        answer = client.post("/v1/interpolate", json={"start": start, **asked})
        assert np.array_equal(np.load(io.BytesIO(answer.content)), engine.interpolate(codes[0], codes[1], 4))


def test_edits_are_strips_along_an_attribute(client, engine, codes):
    asked = {"point": {"latent": codes[0].tolist()}, "attribute": "bent", "strengths": [-1, 0, 2]}
    moved = (codes[0] + np.outer([-1, 0, 2], np.full(8, 0.5))).astype(np.float32)
    strip = client.post("/v1/edit", json=asked)
    assert np.array_equal(pixels_of(strip.content), images.grid(engine.decode(moved), columns=3)[..., 0])
    away = client.post("/v1/edit", json={**asked, "attribute": "straight", "strengths": [1, 0, -2]})
    assert away.content == strip.content
    missing = client.post("/v1/edit", json={**asked, "attribute": "smile"})
    assert "it has straight, bent" in problem(missing, 404)["detail"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("decode", {"latents": []}, "latents"),
        ("decode", {"latents": [[1.0]]}, "latents"),
        ("decode", {"latents": [[0.0] * 8, [0.0]]}, "latents"),
        ("decode", {"latents": [[1e30] * 8]}, "latents"),
        ("decode", {"latents": [[1e300] * 8]}, "latents"),
        ("edit", {"point": {"latent": [1e300] * 8}, "attribute": "bent"}, "point.latent"),
        ("interpolate", {"start": {"seed": 1}, "end": {"latent": [1e300] * 8}}, "end.latent"),
        ("decode", {"latents": [["1"] * 8]}, "latents.0.0"),
        ("decode", {"latents": [[0.0] * 8] * 21}, "latents"),
        ("decode", {"latents": [[0.0] * 8], "format": "gif"}, "format"),
        ("encode", {"images": []}, "images"),
        ("encode", {"images": ["?"]}, "images.0"),
        ("encode", {"images": [base64.b64encode(b"text").decode()]}, "images.0"),
        ("encode", {"images": ["aGVsbG8="] * 21}, "images"),
        ("encode", {"images": ["aGVsbG8="], "format": "png"}, "format"),
        ("encode", {"images": 3}, "images"),
        ("encode", {"pictures": []}, "pictures"),
        ("encode?format=png", {"images": ["aGVsbG8="]}, "format"),
        ("interpolate", {"start": {"seed": 1}}, "end"),
        ("interpolate", {"start": {"seed": 1, "latent": [1.0]}, "end": {"seed": 1}}, "start"),
        ("interpolate", {"start": {}, "end": {"seed": 1}}, "start"),
        ("interpolate", {"start": {"latent": [1.0]}, "end": {"seed": 1}}, "start.latent"),
        ("interpolate", {"start": {"seed": 1}, "end": {"image": "?"}}, "end.image"),
        ("interpolate", {"start": {"seed": 1}, "end": {"seed": 2}, "steps": 21}, "steps"),
        ("interpolate", {"start": {"seed": 1}, "end": {"seed": 2}, "steps": 0}, "steps"),
        ("interpolate", {"start": {"latent": [0] * 8}, "end": {"seed": 2}, "space": "noise"}, "start"),
        ("edit", {"point": {"seed": 1}, "attribute": "bent", "strengths": []}, "strengths"),
        ("edit", {"point": {"seed": 1}, "attribute": "bent", "strengths": [1e9]}, "strengths.0"),
        ("edit", {"point": {"seed": 1}}, "attribute"),
    ],
)
def test_a_field_that_does_not_fit_is_named(client, path, body, field):
    assert field in fields(client.post(f"/v1/{path}", json=body))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_latents_are_finite(client, number):
    body = f'{{"latents": [[{number}, 0, 0, 0, 0, 0, 0, 0]]}}'
    answer = client.post("/v1/decode", content=body, headers={"content-type": "application/json"})
    assert fields(answer) == ["latents.0.0"]


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is huge, and would be."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_pictures_that_lie_are_refused(client, pictures):
    png = images.encode(pictures[0])
    for data in (b"", b"text", png[: len(png) // 2], bomb(10_000, 10_000), bomb(90, 90)):
        answer = client.post("/v1/encode", content=data, headers={"content-type": "image/png"})
        assert fields(answer) == ["body"]
    assert "more than the limit" in client.post("/v1/encode", files={"images": bomb(10_000, 10_000)}).json()["detail"]
    # each is small enough, together they are not
    picture = images.encode(np.zeros((70, 80, 1), np.uint8))
    assert client.post("/v1/encode", files=[("images", picture)]).status_code == 200
    problem(client.post("/v1/encode", files=[("images", picture)] * 2), 422)


def test_bodies_of_other_kinds(client):
    problem(client.post("/v1/encode", content=b"x", headers={"content-type": "text/plain"}), 415)
    problem(client.post("/v1/encode"), 415)
    json_type = {"content-type": "application/json"}
    problem(client.post("/v1/encode", content=b"{", headers=json_type), 400)
    problem(client.post("/v1/encode", content=b"x", headers={"content-type": "multipart/form-data"}), 400)
    problem(client.post("/v1/encode", data={"images": "text"}, files={"more": b"x"}), 400)
    problem(client.post("/v1/encode?model=unknown", json={"images": ["aGVsbG8="]}), 404)


@pytest.mark.parametrize("path", ["encode", "decode", "sample"])
def test_a_body_that_is_too_large_is_refused_declared_or_not(client, path):
    body = json.dumps({"images": ["A" * 100_000]}).encode()
    headers = {"content-type": "application/json"}
    problem(client.post(f"/v1/{path}", content=body, headers=headers), 413)
    problem(client.post(f"/v1/{path}", content=iter([body[:50_000], body[50_000:]]), headers=headers), 413)


def test_every_example_in_the_document_runs(client):
    document = client.get("/openapi.json").json()
    ran = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            given = {parameter["name"]: parameter.get("example") for parameter in operation.get("parameters", [])}
            answer = client.request(method, path.format(**given), json=content["example"])
            assert answer.status_code == 200, (path, answer.text)
            ran += 1
    assert ran == 10
