"""Slow clients, upgrades and what is not HTTP, over real sockets."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import socket
from asyncio.selector_events import BaseSelectorEventLoop
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx2 as httpx
import numpy as np
import pytest
import uvicorn.config

from rae_serve.server import connections
from rae_serve.server.connections import MAX_HEAD_BYTES, Connection
from tests.serving import serving
from tests.waiting import wait_until

N = 100_000  # images of 64 bytes: more than the system's buffers hold
SECONDS = 5  # for N images, on a machine that is busy with other things too


@pytest.fixture(scope="module")
def impatient(bundle, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serving(bundle.path, log, max_seconds=SECONDS, max_images=N, max_waiting=N) as (address, _):
        yield address


def connected(address: str) -> socket.socket:
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def rest_of(connection: socket.socket) -> bytes:
    """What comes until the server ends the connection, which it must."""
    received = b""
    try:
        while more := connection.recv(1 << 20):
            received += more
    except ConnectionResetError:
        pass
    return received


def has_ended(connection: socket.socket) -> bool:
    """Whether the server has ended the connection, without reading what it sent: it then refuses another byte."""
    try:
        connection.send(b"x")
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_a_head_that_never_ends_is_ended(impatient):
    with connected(impatient) as silent, connected(impatient) as begun:
        begun.sendall(b"POST /v1/sample HTTP/1.1\r\nHost: he")
        assert httpx.post(f"{impatient}/v1/sample", json={}).status_code == 200  # others are served meanwhile
        assert rest_of(silent) == rest_of(begun) == b""


def test_a_head_has_a_limit(impatient):
    with connected(impatient) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEAD_BYTES // 6))
        answer = rest_of(connection)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in answer


def test_a_body_that_never_ends_gets_408(impatient):
    with connected(impatient) as connection:
        connection.sendall(b"POST /generate HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{")
        answer = rest_of(connection)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in answer


def test_an_answer_that_is_never_read_is_given_up(impatient):
    body = json.dumps({"n": N, "format": "npy"}).encode()
    with connected(impatient) as connection:
        connection.sendall(b"POST /v1/sample HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        # A second request, which waits behind the first, does not prolong its time.
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: here\r\n\r\n")
        wait_until(lambda: has_ended(connection), 30, "the server gives the connection up", pause=0.1)
        assert len(rest_of(connection)) < N * 64


UPGRADES = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    b"connection: keep-alive\r\nConnection: HTTP2-Settings,  upgrade\r\nupgrade: H2C\r\n",
    b"Upgrade: TLS/1.3\r\nConnection: Upgrade\r\n",
    b"Proxy-Connection: upgrade\r\nUpgrade:\r\nX: upgrade\r\n",
]


def answer_on(connection: socket.socket) -> http.client.HTTPResponse:
    """The next response on a connection, read to its end."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.body = answer.read()
    return answer


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("pieces", [1, 2, 40])
def test_an_upgrade_is_declined_and_the_body_is_read(server, engine, upgrade, is_chunked, pieces):
    body = b'{"n": 2, "seed": 7, "format": "npy"}'
    length = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body)
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body
    head = b"POST /v1/sample HTTP/1.1\r\nHost: here\r\n" + upgrade + b"Content-Type: application/json\r\n" + length
    request = head + b"\r\n\r\n" + sent
    step = -(-len(request) // pieces)
    with connected(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):  # the connection goes on
            for start in range(0, len(request), step):
                connection.sendall(request[start : start + step])
            answer = answer_on(connection)
            assert answer.status == 200
            assert np.array_equal(np.load(io.BytesIO(answer.body)), engine.sample(2, seed=7))


def test_pipelined_requests_with_upgrades_are_all_answered(server):
    request = b"GET /v1/models HTTP/1.1\r\nHost: here\r\n" + UPGRADES[0] + b"\r\n"
    with connected(server) as connection:
        connection.sendall(request * 2 + request.replace(b"Upgrade, ", b"close, Upgrade, "))
        assert rest_of(connection).count(b"HTTP/1.1 200 ") == 3


def test_connect_is_a_method_like_any_other(server):
    with connected(server) as connection:
        connection.sendall(b"CONNECT /v1/models HTTP/1.1\r\nHost: here\r\n" + UPGRADES[0] + b"\r\n")
        assert answer_on(connection).status == 405


@pytest.mark.parametrize("path", ["/v1/models", "/ws", "/livez", "/ui/"])
@pytest.mark.parametrize("name", ["websocket", "WebSocket"])
def test_there_is_no_websocket_anywhere(server, path, name):
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
    answer = httpx.get(server + path, headers={"Connection": "Upgrade", "Upgrade": name, **key})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith(f"there is no WebSocket at {path}")


@pytest.mark.parametrize(
    "request_", [b"\x16\x03\x01", b"nonsense\r\n\r\n", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"]
)
def test_what_is_no_request_of_ours_gets_a_problem(server, request_):
    with connected(server) as connection:
        connection.sendall(request_)
        answer = answer_on(connection)
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body)["status"] == 400
        assert rest_of(connection) == b""


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/docs",
            "/openapi.json",
            "/metrics",
            "/livez",
            "/readyz",
            "/schema.json",
            "/ui",
            "/ui/",
            "/ui/main.js",
        ),
        *("/v1/models", "/v1/models/digits", "/v1/models/digits/images/7/3.png"),
        *("/nothing", "/v1/models/digits/images/x/3.png", "/v1/sample"),
    ],
)
def test_head_is_get_without_its_body(server, path):
    get, head = httpx.get(server + path), httpx.head(server + path)
    assert head.status_code == get.status_code
    assert head.content == b""
    varying = {"date", "x-request-id"} | ({"content-length"} if path == "/metrics" else set())
    assert [(k, v) for k, v in head.headers.items() if k not in varying] == [
        (k, v) for k, v in get.headers.items() if k not in varying
    ]


def test_connections_that_wait_are_accepted_one_by_one(monkeypatch):
    """So that the other workers get some of them."""
    # What `install` changes is restored after the test.
    monkeypatch.setattr(BaseSelectorEventLoop, "_accept_connection", BaseSelectorEventLoop._accept_connection)
    for name in ("front", "limit_s"):
        monkeypatch.setattr(Connection, name, None, raising=False)
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    connections.install(1.0, lambda app: app)
    accepted: list[asyncio.BaseTransport] = []

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(transport)

    loop = asyncio.SelectorEventLoop()

    def turn() -> None:
        loop.call_soon(loop.stop)
        loop.run_forever()

    with ExitStack() as stack:
        stack.callback(loop.close)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(9):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        server = loop.run_until_complete(loop.create_server(Accepted, sock=listener))
        stack.callback(server.close)
        counts = [len(accepted)]
        while counts[-1] < 9:
            turn()
            counts.append(len(accepted))
        for transport in accepted:
            transport.abort()
        turn()
        assert max(np.diff([0, *counts])) <= 2  # two with Python 3.12 and later
