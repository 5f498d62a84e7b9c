"""Limits, attacked: bodies without an end, floods, requests that never come to one; over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from oao_harness import ConfigError
from oao_harness.server.limits import BodyDeadline, BodyLimit, RateLimit
from oao_harness.server.quotas import Quotas, group_of
from tests.server.serving import serving


def make_app() -> FastAPI:
    app = FastAPI()

    @app.post("/json")
    async def given(body: dict[str, str]) -> int:
        return len(body["text"])

    @app.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    @app.post("/careless")
    async def careless(request: Request) -> str:
        try:
            await request.body()
        except BaseException:  # as agents' code does
            return "swallowed"
        return "read"

    @app.post("/deaf")
    async def deaf() -> str:
        return "did not read"

    @app.post("/slow")
    async def slow(request: Request) -> str:
        await request.body()
        await asyncio.sleep(0.8)
        return "took its time"

    @app.get("/streams")
    async def streams() -> StreamingResponse:
        async def ticks() -> AsyncIterator[str]:
            for n in range(8):
                yield f"{n}"
                await asyncio.sleep(0.1)

        return StreamingResponse(ticks())

    @app.get("/breaks")
    async def breaks() -> None:
        raise TimeoutError("the agent's own")

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    return app


def raw_request(url: str, head: str, *parts: bytes, read: bool = True) -> bytes:
    """Send bytes as no client library would."""
    at = urlsplit(url)
    assert at.hostname is not None
    with socket.create_connection((at.hostname, at.port or 80), 10) as sock:
        sock.sendall(head.encode())
        for part in parts:
            try:
                sock.sendall(part)
            except OSError:
                break
        answer = b""
        while read:
            try:
                got = sock.recv(65536)
            except OSError:
                break
            if not got:
                break
            answer += got
        return answer


def assert_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert body["title"]
    assert body["detail"]


# Bodies


@pytest.fixture(scope="module")
def bodies() -> Iterator[str]:
    with serving(BodyLimit(make_app(), most_bytes=1000)) as url:
        yield url


def test_a_body_up_to_the_limit_is_read(bodies: str) -> None:
    """To the byte, whatever it says of its length."""
    assert httpx.post(f"{bodies}/raw", content=b"x" * 1000).json() == 1000
    assert httpx.post(f"{bodies}/raw", content=iter([b"x" * 400, b"x" * 600])).json() == 1000
    assert httpx.post(f"{bodies}/json", json={"text": "hello"}).json() == 5


@pytest.mark.parametrize("path", ["/raw", "/json", "/careless"])
def test_a_body_over_the_limit_is_refused(bodies: str, path: str) -> None:
    """Said in advance, or in pieces without a length, whatever the route makes of the error."""
    assert_problem(httpx.post(f"{bodies}{path}", content=b"x" * 1001), 413)
    assert_problem(httpx.post(f"{bodies}{path}", content=iter([b"x" * 600, b"x" * 401])), 413)
    assert_problem(httpx.post(f"{bodies}{path}", content=iter([b"x"] * 1001)), 413)


def test_a_body_that_never_ends_costs_no_memory(bodies: str) -> None:
    """It is refused after the limit, not at its end."""
    head = "POST /raw HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    began = time.monotonic()
    answer = raw_request(bodies, head, *[chunk] * 2000)
    assert time.monotonic() - began < 10
    assert answer == b"" or b"413" in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("length", ["99999999999999999999999", "-1", "+5", "1e3", "0x10", "5, 5", "\u0665"])
def test_a_length_that_is_a_lie_or_no_number_is_refused(bodies: str, length: str) -> None:
    """By the server or by the limit: it never reaches the route."""
    answer = raw_request(bodies, f"POST /raw HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n", b"hello")
    assert answer.split(b" ")[1] in {b"400", b"413"}


def test_a_body_that_nobody_reads_is_not_waited_for(bodies: str) -> None:
    """The route's own answer comes."""
    assert httpx.post(f"{bodies}/deaf", content=iter([b"x" * 10])).json() == "did not read"


# Rates


def test_who_asks_too_often_is_told_when_to_come_again() -> None:
    """429 with the seconds; before that each answer says what is left; what is exempt is not counted."""
    app = RateLimit(make_app(), quotas=Quotas("3/minute"), exempt=["/streams"])
    with serving(app) as url, httpx.Client(base_url=url) as client:
        for _ in range(5):
            assert "ratelimit" not in client.get("/streams").headers
        left = [client.post("/deaf").headers["ratelimit"].partition(";t=")[0] for _ in range(3)]
        assert left == ['"address";r=2', '"address";r=1', '"address";r=0']
        refused = client.post("/deaf", headers={"X-Forwarded-For": "", "Authorization": "Bearer x"})
        assert_problem(refused, 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit-policy"] == '"address";q=3;w=60'
        head = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        head += f"Sec-WebSocket-Key: {'A' * 22}=="
        assert b" 403 " in raw_request(url, f"GET /ws HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n").split(b"\r\n")[0]


def test_a_counter_begins_anew() -> None:
    """After its window, and not before."""
    now = [0.0]
    quotas = Quotas("2/minute", clock=lambda: now[0])
    assert quotas.policy == (2, 60)
    assert [quotas.hit("a").allowed for _ in range(3)] == [True, True, False]
    assert quotas.hit("b").allowed
    now[0] = 59.9
    last = quotas.hit("a")
    assert (last.allowed, round(last.resets_in_s, 3)) == (False, 0.1)
    now[0] = 60.0
    assert quotas.hit("a").remaining == 1


def test_a_flood_of_addresses_takes_no_memory() -> None:
    """So many are counted; who asks all the time is never forgotten."""
    quotas = Quotas("5/hour", most=100)
    allowed = 0
    for n in range(10_000):
        quotas.hit(f"address {n}")
        if n % 50 == 0:
            allowed += quotas.hit("busy").allowed
    assert quotas.counted == 100
    assert allowed == 5


def test_parts_of_a_name_are_not_mixed_up() -> None:
    """Of two callers whose parts make the same text, neither takes what is the other's."""
    quotas = Quotas("1/hour")
    assert [quotas.hit(*who).allowed for who in (("a/b", "c"), ("a", "b/c"), ("", "a"), ("a", ""))] == [True] * 4
    assert not quotas.hit("a/b", "c").allowed


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("", "unknown"),
        (None, "unknown"),
        ("x" * 10_000, "unknown"),
    ],
)
def test_addresses_of_one_client_count_together(host: str | None, group: str) -> None:
    """Whoever has an IPv6 network has 2**64 addresses."""
    assert group_of(host) == group


@pytest.mark.parametrize("wrong", ["", "many", "0.5/x", "5"])
def test_a_limit_that_is_none_is_an_error(wrong: str) -> None:
    """With what could be written."""
    with pytest.raises(ConfigError, match="600/minute"):
        Quotas(wrong)


# Deadlines


@pytest.fixture(scope="module")
def hurried() -> Iterator[str]:
    app: ASGIApp = BodyDeadline(make_app(), deadline_s=0.4)
    with serving(app) as url:
        yield url


def test_what_takes_long_after_the_body_may(hurried: str) -> None:
    """A run has a deadline of its own; and who reads no body is answered."""
    with httpx.Client(base_url=hurried, timeout=10) as client:
        assert client.post("/slow", content=b"x").json() == "took its time"
        assert client.post("/deaf").json() == "did not read"


def test_a_body_that_trickles_is_ended(hurried: str) -> None:
    """Whoever sends a byte now and then holds nothing for long."""
    began = time.monotonic()
    answer = raw_request(hurried, "POST /raw HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", b"x")
    assert time.monotonic() - began < 5
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 408


def test_an_answer_that_has_begun_goes_on(hurried: str) -> None:
    """A stream lasts longer than that, and an error of the route's own is none of the deadline's."""
    assert httpx.get(f"{hurried}/streams").text == "01234567"
    assert httpx.get(f"{hurried}/breaks").status_code == 500
