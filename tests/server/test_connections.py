"""Connections that are there to hold something: they are closed, and nobody else notices."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.server.conftest import serving

if TYPE_CHECKING:
    from tests.server.conftest import Server


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits a second for what a client has to say."""
    folder: Path = tmp_path_factory.mktemp("connections")
    with serving(folder, "--grace", "1", environ={"OAO_SERVER_BODY_S": "1"}) as started:
        yield started


def opened(server: Server, *said: bytes) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    for part in said:
        connection.sendall(part)
    return connection


def heard(connection: socket.socket) -> bytes:
    """Return what comes until the end of the connection, which must have one."""
    found = b""
    with connection:
        try:
            while part := connection.recv(65536):
                found += part
        except ConnectionError:
            pass
    return found


HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize("said", [b"", b"GET /he", HEAD, HEAD + b"\r\n" + HEAD])
def test_a_head_that_does_not_come_ends_its_connection(quick: Server, said: bytes) -> None:
    """Nothing at all, half a line, half a head, half a second head: 200 of each are gone after the time."""
    began = time.monotonic()
    held = [opened(quick, said) for _ in range(200)]
    assert quick.run("echo", 1).status_code == 200

    for connection in held:
        answer = heard(connection)
        assert answer.count(b"HTTP/1.1 200") == said.count(b"\r\n\r\n")
    assert time.monotonic() - began < 15


def test_a_byte_now_and_then_is_no_sign_of_life(quick: Server) -> None:
    """Whoever sends a head by the byte is given as long as everybody else."""
    connection = opened(quick, HEAD)
    began = time.monotonic()

    def trickle() -> None:
        while time.monotonic() < began + 10:
            connection.sendall(b"X")
            time.sleep(0.1)

    with pytest.raises(ConnectionError):
        trickle()
    assert time.monotonic() - began < 5
    connection.close()


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X: ",
        b"GET /" + b"a" * 10,
        b"POST /run HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
)
def test_a_head_without_end_is_not_kept(quick: Server, head: bytes) -> None:
    """64 MiB of one header, of an address, or of what follows a body are refused long before they are sent."""
    connection, sent = opened(quick, head), 0

    def flood() -> None:
        nonlocal sent
        while sent < 64 * 1024 * 1024:
            connection.sendall(b"a" * 65536)
            sent += 65536

    with pytest.raises((ConnectionError, TimeoutError)):
        flood()
    connection.close()
    assert sent < 16 * 1024 * 1024
    assert quick.run("echo", 1).status_code == 200


def test_what_is_whole_is_answered(quick: Server) -> None:
    """Two requests at once, a body by the byte in time, and a connection that is used again."""
    assert heard(opened(quick, HEAD + b"\r\n" + HEAD + b"Connection: close\r\n\r\n")).count(b"HTTP/1.1 200") == 2
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"agent":"echo","task":"%s"}' % (b"a" * 30_000))
    head = b"POST /run HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    assert b"SUCCESS" in heard(opened(quick, chunked))
    for _ in range(3):
        assert quick.run("slow", 1.2).json()["status"] == "SUCCESS"
        time.sleep(1.2)


def test_no_answer_sends_anybody_to_another_name(quick: Server) -> None:
    """An address with a slash too many is unknown: a redirect would name the host that was asked for."""
    answer = heard(opened(quick, b"GET /runs/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"))
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"evil.example" not in answer
