"""Serve a bundle by LitServe, which batches the requests.

BENCH_BUNDLE=exported/flexae-mnist-small BENCH_DEVICE=cpu python -m benchmarks.serving.peer_litserve PORT
"""

import sys

import litserve
import numpy as np
from fastapi import Response

from benchmarks.serving.generator import Generator, png


class Sampler(litserve.LitAPI):
    def setup(self, device):
        self.generator = Generator.from_environment()

    def decode_request(self, request):
        return self.generator.noise(request["seed"], request["n"])

    def batch(self, inputs):
        self.counts = [len(noise) for noise in inputs]
        return np.concatenate(inputs)

    def predict(self, noise):
        return self.generator.images(noise)

    def unbatch(self, images):
        return np.split(images, np.cumsum(self.counts)[:-1])

    def encode_response(self, images):
        return Response(png(images), media_type="image/png")


if __name__ == "__main__":
    api = Sampler(max_batch_size=32, batch_timeout=0.002, api_path="/v1/sample")
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
