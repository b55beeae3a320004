"""Serve a bundle by PyTriton: Triton's HTTP server and its batching, in front of this process.

BENCH_BUNDLE=exported/flexae-mnist-small BENCH_DEVICE=cpu python -m benchmarks.serving.peer_pytriton PORT

The API is Triton's, `POST /v2/models/sample/infer`; the PNG file is its output tensor of type BYTES.
"""

import socket
import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.serving.generator import Generator

generator = Generator.from_environment()


@batch
def sample(n, seed):
    files = generator.files(list(zip(n[:, 0].tolist(), seed[:, 0].tolist(), strict=True)))
    return {"png": np.array(files, object)[:, None]}


if __name__ == "__main__":
    with socket.socket() as free:  # Triton starts its gRPC service only at a port that is not 0
        free.bind(("127.0.0.1", 0))
        grpc_port = free.getsockname()[1]
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(sys.argv[1]),
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            "sample",
            sample,
            inputs=[Tensor(name=name, dtype=np.int64, shape=(1,)) for name in ("n", "seed")],
            outputs=[Tensor(name="png", dtype=bytes, shape=(1,))],
            config=ModelConfig(max_batch_size=32, batcher=DynamicBatcher()),
        )
        triton.serve()
