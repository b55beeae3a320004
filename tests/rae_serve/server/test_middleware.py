"""What every request passes first, and what is left of it in metrics and log."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rae_serve.engine import Engine
from rae_serve.errors import InvalidInput
from rae_serve.server import logs, metrics
from rae_serve.server.app import create_app
from rae_serve.server.catalog import Catalog
from rae_serve.server.middleware import FrontRequired, RequestMiddleware, front
from rae_serve.server.settings import Settings
from rae_serve.server.short_path import ShortPath


@pytest.fixture(scope="module", params=["app", "short path"])
def app(request, bundle):
    """The service, without and with the short path: the tests cannot tell one from the other."""
    catalog = Catalog(Settings(bundles=str(bundle.path), device="cpu"))
    catalog.load()
    inner = create_app(catalog)
    yield RequestMiddleware(ShortPath(inner, catalog) if request.param == "short path" else inner, catalog.settings)
    catalog.close()


@pytest.fixture
def impatient(app):
    """The same service, which waits 0.3 seconds for a body and for an answer."""
    return RequestMiddleware(app.app, app.settings.model_copy(update={"max_seconds": 0.3}))


@pytest.fixture
def client(app):
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def blocked(app, monkeypatch):
    """Futures that never come."""
    futures = []

    def submit(*_, **__):
        futures.append(Future())
        return futures[-1]

    monkeypatch.setattr(Engine, "submit_sample", submit)
    return futures


def counted(name: str, **labels: str) -> float:
    return metrics._registry.get_sample_value(name, labels) or 0.0


async def converse(app, messages):
    """One POST to /v1/sample whose receive gives these messages, or waits where one is a number of seconds."""
    sent, incoming = [], list(messages)

    async def receive():
        message = incoming.pop(0)
        if isinstance(message, float):
            await asyncio.sleep(message)
            message = incoming.pop(0)
        return message

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/sample", "raw_path": b"/v1/sample", "query_string": b"",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http",
        "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return sent


def test_requests_have_ids(client):
    given = client.get("/v1/models", headers={"X-Request-Id": "mine-7"})
    assert given.headers["x-request-id"] == "mine-7"
    drawn = [client.get("/v1/models", headers={"X-Request-Id": bad}).headers["x-request-id"] for bad in ("", "a b")]
    assert len(set(drawn)) == 2
    assert all(re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", id_) for id_ in drawn)


def test_what_waits_too_long_gets_503_and_is_cancelled(impatient, blocked):
    before = counted("rae_serve_dropped_total", reason="expired")
    answer = TestClient(impatient).post("/v1/sample", json={})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert blocked[0].cancelled()
    assert counted("rae_serve_dropped_total", reason="expired") == before + 1


def test_a_client_who_leaves_cancels_what_it_waits_for(app, blocked):
    before = counted("rae_serve_dropped_total", reason="abandoned")
    body = {"type": "http.request", "body": b"{}", "more_body": False}
    sent = asyncio.run(converse(app, [body, {"type": "http.disconnect"}]))
    assert blocked[0].cancelled()
    assert counted("rae_serve_dropped_total", reason="abandoned") == before + 1
    assert sent[0]["status"] == 499


def test_a_body_that_comes_too_slowly_gets_408(impatient):
    begin = {"type": "http.request", "body": b"{", "more_body": True}
    sent = asyncio.run(converse(impatient, [begin, 60.0, begin]))
    assert sent[0]["status"] == 408
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]


def test_metrics_have_bounded_labels(client):
    client.post("/v1/sample", json={"n": 3, "seed": 1})
    for path in ("/nothing", "/else", "/v1/models/unknown", "/v1/models/digits/images/1/1.png"):
        client.get(path)
    client.request("BREW", "/v1/sample")
    text = client.get("/metrics").text
    for name in ("waiting_rows", "batch_rows_bucket", "latency_ms_bucket", "requests_total", "dropped_total"):
        assert f"rae_serve_{name}" in text
    assert 'route="/v1/models/{name}/images/{seed}/{index}.png"' in text
    assert 'route="other"' in text
    assert 'method="other"' in text
    for secret in ("nothing", "else", "unknown", "BREW"):
        assert secret not in text


def test_a_head_request_is_counted_and_logged_as_such(client, capsys):
    before = counted("rae_serve_requests_total", method="HEAD", route="/v1/models", status="200")
    assert client.head("/v1/models").status_code == 200
    assert counted("rae_serve_requests_total", method="HEAD", route="/v1/models", status="200") == before + 1
    assert json.loads(capsys.readouterr().err)["method"] == "HEAD"


@pytest.mark.parametrize(("n", "status"), [(0, 422), (1, 200)])
def test_the_log_is_json_lines_with_ids(client, capsys, n, status):
    client.post("/v1/sample", json={"n": n}, headers={"X-Request-Id": "seven"})
    line = json.loads(capsys.readouterr().err)
    assert {"id": "seven", "method": "POST", "path": "/v1/sample", "status": status}.items() <= line.items()
    assert (line["level"], line["logger"], line["message"]) == ("info", "rae_serve.access", "answered")
    assert abs(line["time"] - time.time()) < 10


def test_a_log_that_nobody_reads_is_no_error(client, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        assert client.get("/v1/models").status_code == 200
        monkeypatch.undo()
        with suppress(BrokenPipeError):
            broken.close()


def test_workers_count_together(tmp_path):
    """Each in its process, as bentoml serve starts them; a dead worker's gauges are gone, its counts are not."""
    code = (
        "from rae_serve.server import metrics; metrics.DROPPED.labels('expired').inc();"
        "metrics.WAITING_ROWS.labels('prior').set(5); print(metrics.exposition().decode())"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for k in (1, 2):
        text = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout
        assert f'rae_serve_dropped_total{{reason="expired"}} {k}.0' in text
        assert 'rae_serve_waiting_rows{graph="prior"} 5.0' in text


KEYS = ("first-key", "c2Vjb25k+/==")


@pytest.fixture(scope="module")
def locked(bundle):
    settings = Settings(
        bundles=str(bundle.path), device="cpu", api_keys=",".join(KEYS), cors_origins="https://page.example"
    )
    catalog = Catalog(settings)
    catalog.load()
    yield TestClient(front(create_app(catalog), catalog), raise_server_exceptions=False)
    catalog.close()


def test_an_app_without_its_front_serves_nobody():
    app = FrontRequired(create_app(Catalog(Settings())))
    response = TestClient(app).get("/v1/models")
    assert response.status_code == 500
    assert "start it by `rae-serve serve`" in response.json()["detail"]


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("key", KEYS)
def test_any_of_the_keys_opens(locked, key):
    assert locked.post("/v1/sample", json={}, headers=bearing(key)).status_code == 200
    assert locked.get("/metrics", headers={"authorization": f"bearer  {key}"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, bearing(""), bearing("first"), bearing("first-key2"), {"Authorization": "Basic first-key"}]
)
@pytest.mark.parametrize("path", ["/v1/sample", "/metrics", "/nothing", "/v1/models", "/uiv1", "/x/ui/", "/encode"])
def test_without_a_key_there_is_nothing(locked, path, headers):
    answer = locked.post(path, content=b"x" * 10, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith('Bearer realm="rae-serve"')
    assert ("invalid_token" in answer.headers["www-authenticate"]) == ("Bearer" in headers.get("Authorization", ""))
    assert answer.headers["x-request-id"]
    assert "Authorization: Bearer" in answer.json()["detail"]


def test_what_needs_no_key_gives_away_no_model(locked):
    for path in ("/", "/ui/", "/ui/style.css", "/docs", "/docs/files/swagger-ui.css", "/openapi.json"):
        answer = locked.get(path)
        assert answer.status_code == 200
        assert "digits" not in answer.text
    document = locked.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert document["security"] == [{"key": []}]
    assert "401" in document["paths"]["/v1/models"]["get"]["responses"]


def test_a_server_without_keys_asks_for_none(client):
    assert "security" not in client.get("/openapi.json").json()
    assert client.get("/v1/models", headers=bearing("any")).status_code == 200


def test_the_first_to_ask_for_the_document_holds_up_nobody(app):
    assert create_app(Catalog(app.settings)).openapi_schema


def test_keys_are_never_shown(locked, caplog, capsys, monkeypatch):
    with caplog.at_level(logging.DEBUG):
        for key in (KEYS[0], "wrong-key"):
            locked.post("/v1/sample", json={"n": 0}, headers=bearing(key))
    log = capsys.readouterr().err + "".join(logs.JsonLines().format(record) for record in caplog.records)
    assert '"status": 401' in log
    assert '"status": 422' in log
    assert "-key" not in log
    assert "-key" not in repr(Settings(api_keys=KEYS[0]))
    for bad in ("good-key,bad key", "", "bad-key,"):
        monkeypatch.setenv("RAE_SERVE_API_KEYS", bad)
        with pytest.raises(InvalidInput, match=r"RAE_SERVE_API_KEYS: .*must be one or more") as raised:
            Settings.from_environment()
        assert "-key" not in str(raised.value)


def test_pages_of_named_sites_alone_may_read_answers(locked, client):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    for origin, allowed in (("https://page.example", True), ("https://other.example", False)):
        for answer in (
            locked.options("/v1/sample", headers={"Origin": origin, **asked}),
            locked.post("/v1/sample", json={}, headers={"Origin": origin, **bearing(KEYS[0])}),
            locked.post("/v1/sample", json={}, headers={"Origin": origin}),
        ):
            assert ("access-control-allow-origin" in answer.headers) == allowed
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json"
    answer = client.post("/v1/sample", json={}, headers={"Origin": "https://page.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_origins_are_checked(monkeypatch):
    monkeypatch.setenv("RAE_SERVE_CORS_ORIGINS", "page.example")
    with pytest.raises(InvalidInput, match=r"RAE_SERVE_CORS_ORIGINS: .*https://example\.org"):
        Settings.from_environment()


def test_a_body_is_limited_whatever_it_is_for(app):
    """As it comes, since it may come without its length."""
    part = {"type": "http.request", "body": b"0" * 10_000_000, "more_body": True}
    sent = asyncio.run(converse(app, [part, part]))
    assert sent[0]["status"] == 413
    assert (b"connection", b"close") in sent[0]["headers"]


def test_a_client_who_leaves_amid_its_body_reaches_no_model(app, blocked):
    part = {"type": "http.request", "body": b"{", "more_body": True}
    sent = asyncio.run(converse(app, [part, {"type": "http.disconnect"}]))
    assert sent[0]["status"] == 499
    assert not blocked


def test_forms_never_reach_the_disk(client, monkeypatch):
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", None)
    answer = client.post("/v1/encode", files={"images": ("large.png", b"0" * 3_000_000, "image/png")})
    assert answer.status_code == 422


def test_every_setting_is_documented():
    document = (Path(__file__).parents[3] / "docs" / "http.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        assert field.description
        meaning = " ".join(field.description.split())
        default = "" if field.default is None else f"`{str(field.default).lower()}`"
        assert f"| `RAE_SERVE_{name.upper()}` | {default} | {meaning} |" in document


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.startswith(("max_", "reload_"))])
def test_every_limit_says_what_a_higher_value_does_and_where_to_start(name):
    description = Settings.model_fields[name].description
    assert "Higher: " in description
    assert "Start " in description
