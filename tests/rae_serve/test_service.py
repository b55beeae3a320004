"""The service as users run it: `bentoml serve` from the repo root, over a real socket."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import bentoml
import httpx2 as httpx
import numpy as np
import psutil
import pytest

from tests.serving import KEY, ROOT, serving
from tests.waiting import wait_until


def test_images_over_http(server, engine):
    response = httpx.post(f"{server}/v1/sample", json={"n": 4, "seed": 7, "format": "npy"})
    assert np.array_equal(np.load(io.BytesIO(response.content)), engine.sample(4, seed=7))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("DELETE", "/v1/models", None, 405),
        ("GET", "/generate", None, 405),
        ("POST", "/v1/sample", {"n": 0}, 422),
        ("POST", "/generate", {"n": 0}, 400),
        ("POST", "/generate", {"n": "many"}, 400),
        ("POST", "/generate", {"model": "unknown"}, 404),
        ("POST", "/decode", {"latents": [[1.0]]}, 400),
    ],
)
def test_every_error_is_problem_details(server, method, path, body, status):
    response = httpx.request(method, server + path, json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"]


def test_the_tensor_verbs_serve_bentos_client(server, engine):
    with bentoml.SyncHTTPClient(server) as client:
        images = np.asarray(client.generate(n=3, seed=5), np.uint8)  # JSON knows no uint8
        assert np.array_equal(images, engine.sample(3, seed=5))
        latents = client.encode(images=images)
        np.testing.assert_allclose(latents, engine.encode(engine.sample(3, seed=5)), rtol=1e-5)
        assert np.array_equal(client.decode(latents=np.asarray(latents, np.float32)), engine.reconstruct(images))


def test_probes_and_metrics_answer(server):
    assert httpx.get(f"{server}/livez").status_code == 200
    assert httpx.get(f"{server}/readyz").status_code == 200
    assert httpx.post(f"{server}/v1/sample", json={}).status_code == 200
    text = httpx.get(f"{server}/metrics").text
    assert 'rae_serve_requests_total{method="POST",route="/v1/sample",status="200"}' in text
    assert "rae_serve_models 1.0" in text


def test_keys_guard_bentomls_own_endpoints_and_no_probe(locked_server, engine):
    for path in ("/livez", "/readyz", "/healthz"):
        assert httpx.get(locked_server + path).status_code == 200
    for path in ("/generate", "/encode", "/decode", "/schema.json", "/metrics"):
        assert httpx.post(locked_server + path, json={}).status_code == 401
    with bentoml.SyncHTTPClient(locked_server, token=KEY) as client:
        images = np.asarray(client.generate(n=3, seed=5), np.uint8)
    assert np.array_equal(images, engine.sample(3, seed=5))


def test_the_tensor_verbs_have_the_same_limits(server):
    answer = httpx.post(f"{server}/generate", content=b"0" * 17_000_000)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_tensor_verbs_take_no_form(server):
    answer = httpx.post(f"{server}/encode", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_server_without_bundles_ends_at_once(tmp_path):
    environment = os.environ | {"RAE_SERVE_BUNDLES": str(tmp_path / "nothing"), "BENTOML_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "bentoml", "serve", "rae_serve.service:RaeServe"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "rae-serve: there is no folder" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_two_workers_pick_up_what_changes_and_end_with_their_work_done(bundle, tmp_path):
    folder = Path(shutil.copytree(bundle.path, tmp_path / "bundles" / "one"))
    log, two = tmp_path / "serve.log", tmp_path / "bundles" / "two"
    settings = {"workers": 2, "reload_seconds": 0.1, "max_images": 20_000, "max_waiting": 160_000}
    with serving(folder.parent, log, **settings) as (address, process):
        shutil.copytree(folder, tmp_path / "two").rename(two)
        wait_until(lambda: log.read_text().count(f"{two} is served as two") == 2, 30, "both workers serve the second")
        body = json.dumps({"n": 20_000, "seed": 1, "format": "npy"}).encode()
        large = [begun(address, body) for _ in range(4)]
        for connection in large:
            connection.send(body)
        process.terminate()
        for connection in large:
            answer = connection.getresponse()
            assert answer.status == 200
            assert np.load(io.BytesIO(answer.read())).shape == (20_000, 8, 8, 1)
            connection.close()
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert {"level", "logger", "message", "time"} <= set(lines[0])
    assert sum(line.get("path") == "/v1/sample" and line["status"] == 200 for line in lines) == 4


def test_servers_of_one_home_do_not_share_metrics(bundle, tmp_path, monkeypatch):
    folders = tmp_path / "temporary"
    folders.mkdir()
    monkeypatch.setenv("TMPDIR", str(folders))

    def counted(address: str) -> str:
        lines = httpx.get(f"{address}/metrics").text.splitlines()
        return next(
            (line.split()[-1] for line in lines if line.startswith("rae_serve_requests_total{") and "sample" in line),
            "",
        )

    with serving(bundle.path, tmp_path / "one.log", workers=2) as (one, _):
        for _ in range(3):  # a new connection each, so that both workers may have some of them
            assert httpx.post(f"{one}/v1/sample", json={}).status_code == 200
        with serving(bundle.path, tmp_path / "two.log") as (two, _):
            assert httpx.post(f"{two}/v1/sample", json={}).status_code == 200
            assert (counted(one), counted(two)) == ("3.0", "1.0")
        assert counted(one) == "3.0"
    assert not list(folders.glob("rae-serve-metrics-*"))


def begun(address: str, body: bytes) -> HTTPConnection:
    """A request that a worker has taken up, and whose body it is waiting for."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/v1/sample")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", len(body))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    going_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert connection.sock.recv(len(going_on), socket.MSG_WAITALL) == going_on
    return connection


def test_a_worker_that_dies_in_a_container_is_replaced(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("BENTOML_CONTAINERIZED", "true")  # as BentoML's images do
    with serving(bundle.path, tmp_path / "serve.log") as (address, process):
        (worker,) = (child for child in psutil.Process(process.pid).children() if "--worker-id" in child.cmdline())
        worker.kill()
        worker.wait(10)
        assert httpx.get(f"{address}/readyz", timeout=60).status_code == 200
