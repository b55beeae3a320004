"""Two servers behind nginx are restarted one after the other under load, and no request is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.serving import ROOT, free_port, serving
from tests.toolchains import require
from tests.waiting import wait_until

MAIN = """
daemon off;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  scgi_temp_path {folder}/scgi;
  uwsgi_temp_path {folder}/uwsgi;
  include {folder}/servers.conf;
}}
"""
CLIENTS = 4
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def nginx(folder: Path, one: int, two: int) -> Iterator[str]:
    """Run nginx, as deploy/nginx.conf sets it up, in front of two ports of this machine; give its address."""
    port = free_port()
    servers = (ROOT / "deploy" / "nginx.conf").read_text()
    for shipped, used in ((3000, port), (3001, one), (3002, two)):
        assert servers.count(f"127.0.0.1:{shipped}") == 1
        servers = servers.replace(f"127.0.0.1:{shipped}", f"127.0.0.1:{used}")
    folder.mkdir()
    (folder / "servers.conf").write_text(servers)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    log = folder / "error.log"
    process = subprocess.Popen([NGINX, "-c", folder / "nginx.conf", "-p", folder, "-e", log])
    try:
        wait_until((folder / "nginx.pid").exists, 10, "nginx runs", pause=0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def load(address: str) -> Iterator[list[str]]:
    """Send requests from several clients all the time; give the list of what they got."""
    outcomes: list[str] = []
    ended = threading.Event()

    def client(index: int) -> None:
        with httpx.Client(base_url=address, timeout=60) as session:
            while not ended.is_set():
                try:
                    if index % 2:
                        answer = session.post("/v1/sample", json={"n": 4, "seed": index})
                    else:
                        answer = session.get(f"/v1/models/digits/images/{index}/0.png")
                    outcomes.append(str(answer.status_code))
                except httpx.HTTPError as error:
                    outcomes.append(repr(error))

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, index) for index in range(CLIENTS)]
        try:
            yield outcomes
        finally:
            ended.set()
        for done in clients:
            done.result()


@pytest.mark.timeout(300)  # it starts four servers
def test_no_request_is_lost(bundle, tmp_path):
    require(NGINX, "nginx")
    ports = [free_port(), free_port()]

    def start(index: int, generation: int) -> None:
        log = tmp_path / f"{index}-{generation}.log"
        settings = {"port": ports[index], "workers": 2 - index, "access_log": False}
        servers[index].enter_context(serving(bundle.path, log, **settings))

    def more_answers() -> None:
        wanted = len(outcomes) + 100
        wait_until(lambda: len(outcomes) >= wanted, 30, "100 more answers")

    with nginx(tmp_path / "nginx", *ports) as address, ExitStack() as one, ExitStack() as two:
        servers = (one, two)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(start, (0, 1), (0, 0)))
        with load(address) as outcomes:
            for index in (0, 1):
                more_answers()
                servers[index].close()
                more_answers()
                start(index, 1)
                more_answers()
    assert Counter(outcomes) == {"200": len(outcomes)}


def test_a_server_that_ends_says_so_and_goes_on(bundle, tmp_path):
    with serving(bundle.path, tmp_path / "serve.log", drain_seconds=60) as (address, process):
        with httpx.Client(base_url=address) as session:
            assert session.get("/readyz").headers.get("connection") is None
            process.terminate()
            wait_until(lambda: httpx.get(f"{address}/readyz").status_code == 503, 30, "the server is not ready")
            answer = session.post("/v1/sample", json={})
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            assert httpx.get(f"{address}/livez").status_code == 200
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGTERM)  # in less than the 60 s
