"""Serve a bundle by BentoML with its own batching: an HTTP service in front of a batching one.

BENCH_BUNDLE=exported/flexae-mnist-small BENCH_DEVICE=cpu bentoml serve benchmarks.serving.peer_bentoml:Front
"""

import os

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
import numpy as np
from fastapi import FastAPI, Response
from pydantic import BaseModel

from benchmarks.serving.generator import Generator, png

app = FastAPI()


class Request(BaseModel):
    n: int = 1
    seed: int = 0


@bentoml.service(logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Back:
    def __init__(self) -> None:
        self.generator = Generator.from_environment()

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def generate(self, noise: np.ndarray) -> np.ndarray:  # BentoML reads these two types
        return self.generator.images(noise.astype(np.float32))


@bentoml.service(http={"host": "127.0.0.1"}, logging={"access": {"enabled": False}}, metrics={"enabled": False})
@bentoml.asgi_app(app, path="/")
class Front:
    back = bentoml.depends(Back)

    def __init__(self) -> None:
        self.dim = Generator.from_environment().noise_dim

    @app.post("/v1/sample")
    async def sample(self, request: Request) -> Response:
        noise = np.random.default_rng(request.seed).standard_normal((request.n, self.dim), dtype=np.float32)
        return Response(png(await self.back.to_async.generate(noise)), media_type="image/png")
