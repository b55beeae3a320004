"""The service as users run it: `bentoml serve` from the repo root, over a real socket."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bentoml
import httpx2 as httpx
import numpy as np
import pytest

from rae_serve.bundle import Bundle

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("log") / "serve.log"
    environment = os.environ | {
        "RAE_SERVE_BUNDLES": str(bundle.path),
        "RAE_SERVE_PORT": str(port),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if httpx.get(f"{address}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15)


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
