"""Serve a bundle by mosec: HTTP in Rust, and a process per core that answers batches of requests.

BENCH_BUNDLE=exported/flexae-mnist-small BENCH_DEVICE=cpu python -m benchmarks.serving.peer_mosec --port PORT
"""

import os

from mosec import Runtime, Server, Worker

from benchmarks.serving.generator import Generator
from rae_serve import sessions

# Processes of one thread each make more images than one process with all threads.
PROCESSES = sessions.available_cores() if os.environ["BENCH_DEVICE"] == "cpu" else 1


class Sampler(Worker):
    resp_mime_type = "image/png"

    def __init__(self):
        super().__init__()
        self.generator = Generator.from_environment(threads=1)

    def forward(self, data):
        return self.generator.files([(request["n"], request["seed"]) for request in data])

    def serialize(self, data):
        return data


if __name__ == "__main__":
    server = Server()
    # One millisecond is the shortest wait that mosec takes.
    sampler = Runtime(Sampler, num=PROCESSES, max_batch_size=32, max_wait_time=1, timeout=30)
    server.register_runtime({"/v1/sample": [sampler]})
    server.run()
