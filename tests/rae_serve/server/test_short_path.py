"""The short path: which requests it takes, and that nobody can tell its responses from the app's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from rae_serve.bundle import Bundle
from rae_serve.server.app import create_app
from rae_serve.server.catalog import Catalog
from rae_serve.server.middleware import RequestMiddleware
from rae_serve.server.settings import Settings
from rae_serve.server.short_path import ShortPath

JSON = {"Content-Type": "application/json"}
IMAGE = "/v1/models/digits/images/7/3.png"
PLAIN: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/sample", {"json": {}}),
    ("POST", "/v1/sample", {"json": {"n": 5, "seed": 7, "offset": 2, "temperature": 0.5, "format": "npy"}}),
    ("POST", "/v1/sample", {"json": {"n": 3, "seed": 7, "model": "digits", "format": "json"}}),
    ("POST", "/v1/sample", {"json": {"n": 3, "seed": 7, "format": "zip"}}),
    ("POST", "/v1/sample?unused=1", {"json": {"seed": 7}}),
    (
        "POST",
        "/v1/sample",
        {"content": b'{"seed": 7}', "headers": {"Content-Type": "Application/LD+json; charset=utf-8"}},
    ),
    ("POST", "/v1/sample", {"json": {"model": "unknown"}}),
    ("POST", "/v1/sample", {"json": {"n": 101}}),
    ("GET", IMAGE, {}),
    ("HEAD", IMAGE, {}),
    ("GET", IMAGE, {"headers": {"If-None-Match": "*"}}),
    ("GET", "/v1/models/%64igits/images/%37/3.png", {}),
    ("GET", "/v1/models/unknown/images/7/3.png", {}),
]
OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/models", {}),
    ("GET", "/v1/sample", {}),
    ("POST", "/v1/sample/", {"json": {}}),
    ("POST", "/v1/sample", {"json": {"n": 0}}),
    ("POST", "/v1/sample", {"json": {"n": "1"}}),
    ("POST", "/v1/sample", {"json": {"colour": 1}}),
    ("POST", "/v1/sample", {"json": [1]}),
    ("POST", "/v1/sample", {"content": b"{", "headers": JSON}),
    ("POST", "/v1/sample", {"content": b"\xff", "headers": JSON}),
    ("POST", "/v1/sample", {"content": b"[" * 100_000, "headers": JSON}),
    ("POST", "/v1/sample", {"content": b"", "headers": JSON}),
    ("POST", "/v1/sample", {"content": b"{}"}),
    ("POST", "/v1/sample", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}),
    ("POST", IMAGE, {}),
    ("GET", IMAGE.replace("7", "07"), {}),
    ("GET", IMAGE.replace("7", str(2**53)), {}),
    ("GET", IMAGE + "/", {}),
]


@pytest.fixture(scope="module")
def catalog(bundle: Bundle) -> Iterator[Catalog]:
    catalog = Catalog(Settings(bundles=str(bundle.path), device="cpu", max_images=100))
    catalog.load()
    yield catalog
    catalog.close()


@pytest.fixture(scope="module")
def app(catalog: Catalog) -> TestClient:
    return TestClient(RequestMiddleware(create_app(catalog), catalog.settings), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def short(catalog: Catalog) -> TestClient:
    inner = ShortPath(create_app(catalog), catalog)
    return TestClient(RequestMiddleware(inner, catalog.settings), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def alone(catalog: Catalog) -> TestClient:
    """The short path around an app that answers every request with 418."""

    async def teapot(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        await Response(message["body"], 418)(scope, receive, send)

    return TestClient(RequestMiddleware(ShortPath(teapot, catalog), catalog.settings))


@pytest.mark.parametrize(("method", "path", "options"), PLAIN)
def test_a_plain_request_gets_the_response_of_the_app(app, short, alone, method, path, options):
    if options.get("json") == {}:  # the seed is drawn
        options = {"json": {"seed": 7}}
    responses = [client.request(method, path, **options) for client in (app, short, alone)]
    for response in responses:
        del response.headers["X-Request-Id"]
    expected = responses[0]
    assert expected.status_code != 418
    for response in responses[1:]:
        assert (response.status_code, response.headers) == (expected.status_code, expected.headers)
        assert response.content == expected.content


@pytest.mark.parametrize(("method", "path", "options"), OTHERS)
def test_any_other_request_goes_to_the_app_with_its_body(app, short, alone, method, path, options):
    passed = alone.request(method, path, **options)
    assert passed.status_code == 418
    assert passed.content == passed.request.content
    one, other = (client.request(method, path, follow_redirects=False, **options) for client in (app, short))
    assert (one.status_code, one.content) == (other.status_code, other.content)
