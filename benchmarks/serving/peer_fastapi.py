"""Serve a bundle by FastAPI and ONNX Runtime, without batching, as most people would write it.

BENCH_BUNDLE=exported/flexae-mnist-small BENCH_DEVICE=cpu uvicorn benchmarks.serving.peer_fastapi:app
"""

from fastapi import FastAPI, Response
from pydantic import BaseModel

from benchmarks.serving.generator import Generator, png

app = FastAPI()
generator = Generator.from_environment()


class Request(BaseModel):
    n: int = 1
    seed: int = 0


@app.post("/v1/sample")
def sample(request: Request) -> Response:
    return Response(png(generator.images(generator.noise(request.seed, request.n))), media_type="image/png")
