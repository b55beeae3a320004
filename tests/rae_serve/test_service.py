"""The service as users run it: `bentoml serve` from the repo root, over a real socket."""

from __future__ import annotations

import io

import bentoml
import httpx2 as httpx
import numpy as np
import pytest


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
