"""Clients who take their time, over real sockets."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest

from rae_serve.server.connections import MAX_HEAD_BYTES
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
        assert rest_of(connection).startswith(b"HTTP/1.1 400 ")


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
