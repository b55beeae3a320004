"""What every request passes first, and what is left of it in metrics and log."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rae_serve import logs, metrics
from rae_serve.api import create_app
from rae_serve.catalog import Catalog
from rae_serve.engine import Engine
from rae_serve.settings import Settings


@pytest.fixture(scope="module")
def app(bundle):
    catalog = Catalog(Settings(bundles=str(bundle.path), device="cpu", max_seconds=0.3))
    catalog.load()
    yield create_app(catalog)
    catalog.close()


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


def test_what_waits_too_long_gets_503_and_is_cancelled(client, blocked):
    before = counted("rae_serve_dropped_total", reason="expired")
    answer = client.post("/v1/sample", json={})
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


def test_a_body_that_comes_too_slowly_gets_408(app):
    begin = {"type": "http.request", "body": b"{", "more_body": True}
    sent = asyncio.run(converse(app, [begin, 60.0, begin]))
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


def test_the_log_is_json_lines_with_ids(client, caplog):
    with caplog.at_level(logging.INFO, "rae_serve.access"):
        client.post("/v1/sample", json={"n": 0}, headers={"X-Request-Id": "seven"})
    line = json.loads(logs.JsonLines().format(caplog.records[-1]))
    assert {"id": "seven", "method": "POST", "path": "/v1/sample", "status": 422}.items() <= line.items()
    assert line["level"] == "info"


def test_workers_count_together(tmp_path):
    """Each in its process, as bentoml serve starts them; a dead worker's gauges are gone, its counts are not."""
    code = (
        "from rae_serve import metrics; metrics.DROPPED.labels('expired').inc();"
        "metrics.WAITING_ROWS.labels('prior').set(5); print(metrics.exposition().decode())"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for k in (1, 2):
        text = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout
        assert f'rae_serve_dropped_total{{reason="expired"}} {k}.0' in text
        assert 'rae_serve_waiting_rows{graph="prior"} 5.0' in text


def test_every_setting_is_documented():
    document = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{str(field.default).lower()}`"
        assert f"| `RAE_SERVE_{name.upper()}` | {default} | {field.description or ''} |" in document
