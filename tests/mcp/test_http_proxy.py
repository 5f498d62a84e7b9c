"""`oao mcp-proxy --http`: real sockets between a client, the proxy and a server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from oao_harness import FilePolicy, Orchestrator
from oao_harness.mcp.http import create_proxy
from oao_harness.mcp.sessions import Options
from oao_hookspecs import RunQuery

POLICY = '[tools]\ndeny = ["drop"]\n\n[limits]\ncall_timeout_seconds = 0.5\n'
BOTH = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application on a free port of this machine."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(timeout=10)
        listening.close()


class Server:
    """Answers as it is told to, and keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answered: list[Any] = []
        everything = Route("/{path:path}", self.answer, methods=["GET", "POST", "DELETE"])

        @contextlib.asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            yield

        self.app = Starlette(routes=[everything], lifespan=lifespan)

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        self.got.append((request.method, request.url.path, dict(request.headers), body))
        if request.url.path == "/moved":
            return RedirectResponse(str(request.base_url) + "mcp")
        if request.url.path != "/mcp":
            return JSONResponse({"beside": request.url.path}, headers={"www-authenticate": "Bearer"})
        if request.method != "POST":
            return Response(status_code=200 if request.method == "DELETE" else 405)
        message = json.loads(body)
        if not isinstance(message, dict) or "method" not in message:
            self.answered.append(message)
            return Response(status_code=202)
        head = {"mcp-session-id": "s-1"} if message["method"] == "initialize" else {}
        name = message.get("params", {}).get("name")
        result = {"jsonrpc": "2.0", "id": message.get("id"), "result": {"name": name, "content": []}}
        if name == "slow":
            await asyncio.sleep(2)
        if name == "locked":
            return Response("no", status_code=401, headers={"www-authenticate": 'Bearer scope="x"'})
        if name in {"streamed", "slow-stream", "thinks"}:
            return StreamingResponse(self.events(result, name), media_type="text/event-stream")
        return Response(json.dumps(result, indent=1), media_type="application/json", headers=head)

    async def events(self, result: Any, name: str) -> AsyncIterator[bytes]:
        yield b"id: 7\r\ndata: \r\n\r\n: a comment\n\n"
        if name == "thinks":
            asked = {"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {"messages": []}}
            yield b"event: message\ndata: " + json.dumps(asked).encode() + b"\n\n"
            while not self.answered:
                await asyncio.sleep(0.01)
        if name == "slow-stream":
            await asyncio.sleep(1.2)
        whole = b"event: message\nid: 8\ndata: " + json.dumps(result).encode() + b"\n\n"
        yield whole[:20]
        await asyncio.sleep(0.01)
        yield whole[20:]


@contextlib.contextmanager
def proxied(server: Server, policy: str, store: str) -> Iterator[httpx.Client]:
    """A client of a proxy in front of a server."""
    orchestrator = Orchestrator(FilePolicy.from_text(policy), store)
    with serving(server.app) as url:
        app = create_proxy(orchestrator, Options(name="shop"), f"{url}/mcp", most_bytes=100_000)
        with serving(app) as here, httpx.Client(base_url=here, headers=BOTH, timeout=5, trust_env=False) as found:
            yield found
    orchestrator.store.close()


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[httpx.Client, Server]]:
    """One proxy for all tests that leave it as it was."""
    server = Server()
    with proxied(server, POLICY, "memory:") as client:
        yield client, server


@pytest.fixture
def client(both: tuple[httpx.Client, Server]) -> httpx.Client:
    """A client of the proxy."""
    return both[0]


@pytest.fixture
def server(both: tuple[httpx.Client, Server]) -> Server:
    """The server behind the proxy; it has got nothing yet."""
    both[1].got.clear()
    both[1].answered.clear()
    return both[1]


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Where the journals are."""
    return f"sqlite:{tmp_path / 'runs.db'}"


def call(name: str, id: Any = 1, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def test_bytes_and_headers_pass(client: httpx.Client, server: Server) -> None:
    """Of both directions; the ones of a connection are each side's own."""
    raw = b'{ "jsonrpc":"2.0", "id":1,"method" : "tools/call","params":{"name":"echo","arguments":{"x":1.0e1}}}'
    answer = client.post("/mcp?x=a%2Fb", content=raw, headers={"authorization": "Bearer t", "mcp-name": "echo"})
    _, _, headers, body = server.got[-1]

    assert body == raw
    assert (headers["authorization"], headers["mcp-name"]) == ("Bearer t", "echo")
    assert answer.content.startswith(b'{\n "jsonrpc"')
    assert answer.json()["result"]["name"] == "echo"


def test_a_denied_call_never_reaches_the_server(client: httpx.Client, server: Server) -> None:
    """It is answered as an error of the tool."""
    answer = client.post("/mcp", json=call("drop"))

    assert answer.status_code == 200
    assert answer.json()["result"]["isError"] is True
    assert server.got == []


def test_a_stream_passes_event_by_event(client: httpx.Client) -> None:
    """Priming events, comments, ids, line ends: the very bytes."""
    answer = client.post("/mcp", json=call("streamed"))

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content.startswith(b"id: 7\r\ndata: \r\n\r\n: a comment\n\nevent: message\nid: 8\ndata: ")
    assert b'"name": "streamed"' in answer.content


@pytest.mark.parametrize("name", ["slow", "slow-stream"])
def test_a_call_that_takes_too_long_is_answered(client: httpx.Client, server: Server, name: str) -> None:
    """In time, whether the server has begun a stream or not; the journal says why."""
    began = time.monotonic()
    answer = client.post("/mcp", json=call(name))

    assert b"call_timeout" in answer.content
    assert time.monotonic() - began < 1.9
    assert answer.content.count(b'"result"') == 1


def test_sampling_is_judged_and_passes(client: httpx.Client, server: Server) -> None:
    """The client's answer to it reaches the server, in a request of the proxy's own."""
    with client.stream("POST", "/mcp", json=call("thinks"), headers={"authorization": "Bearer t"}) as answer:
        seen = b""
        for chunk in answer.iter_raw():
            seen += chunk
            if b"sampling/createMessage" in seen and not server.answered and b'"q"' in seen:
                reply = client.post("/mcp", json={"jsonrpc": "2.0", "id": "q", "result": {"role": "assistant"}})
                assert reply.status_code == 202

    assert server.answered == [{"jsonrpc": "2.0", "id": "q", "result": {"role": "assistant"}}]
    assert server.got[-1][2]["authorization"] == "Bearer t"
    assert b'"name": "thinks"' in seen


def test_an_http_error_passes(client: httpx.Client) -> None:
    """With the headers that OAuth needs."""
    answer = client.post("/mcp", json=call("locked"))

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer scope="x"')


def test_sessions_have_budgets_of_their_own(store: str) -> None:
    """By the ids that the server gave out; who makes one up shares the budget of those without.

    And of tokens and session ids nothing is journaled.
    """
    with proxied(Server(), f"{POLICY}max_tool_calls = 2\n", store) as client:
        client.post("/mcp", json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}})
        token = {"authorization": "Bearer hidden-token"}
        named, invented = {"mcp-session-id": "s-1", **token}, [{"mcp-session-id": f"mine-{n}"} for n in range(3)]
        first = [client.post("/mcp", json=call("echo"), headers=named).json()["result"] for _ in range(3)]
        second = [client.post("/mcp", json=call("echo"), headers=headers).json()["result"] for headers in invented]
        client.request("DELETE", "/mcp", headers=named)
        orchestrator = Orchestrator(store=store)
        runs = orchestrator.store.runs(query=RunQuery(outer=True))
    lines = [str([*orchestrator.store.read(run.execution_id)]) for run in orchestrator.store.runs()]
    orchestrator.store.close()

    assert [one.get("isError", False) for one in first] == [False, False, True]
    assert [one.get("isError", False) for one in second] == [False, False, True]
    assert sorted((run.agent_name, run.status) for run in runs) == [("mcp:shop", "RUNNING"), ("mcp:shop", "SUCCESS")]
    assert len(lines) == 8
    assert not [line for line in lines if "hidden-token" in line or "s-1'" in line or "mine-" in line]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/messages", json.dumps(call("drop")).encode(), {}, 404),
        ("/token", json.dumps(call("drop")).encode("utf-16"), {}, 400),
        ("/mcp", b"[" + json.dumps(call("drop")).encode() + b"]", {}, 400),
        ("/mcp", b'{"id":1,"method":"ping","method":"tools/call"}', {}, 400),
        ("/mcp", b"\x1f\x8b", {"content-encoding": "gzip"}, 415),
        ("/mcp", b"x" * 100_001, {}, 413),
        ("/mcp", json.dumps(call("drop")).encode(), {"host": "evil.example"}, 403),
        ("/mcp", json.dumps(call("drop")).encode(), {"origin": "http://evil.example"}, 403),
        ("/%6dcp", json.dumps({**call("drop"), "id": None}).encode(), {}, 400),
    ],
)
def test_no_way_around(
    client: httpx.Client, server: Server, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Other paths, other encodings, batches, a page in a browser: the server hears nothing."""
    answer = client.post(path, content=body, headers=headers)

    assert answer.status_code == status
    assert server.got == []


def test_what_is_no_message_passes_beside(client: httpx.Client, server: Server) -> None:
    """Metadata, forms; and a redirect leads back to the proxy."""
    metadata = client.get("/.well-known/oauth-protected-resource/mcp")
    form = {"content-type": "application/x-www-form-urlencoded"}
    token = client.post("/token", content=b"grant_type=x", headers=form)
    moved = client.get("/moved")

    assert metadata.json() == {"beside": "/.well-known/oauth-protected-resource/mcp"}
    assert token.json() == {"beside": "/token"}
    assert server.got[1][3] == b"grant_type=x"
    assert moved.headers["location"].startswith(str(client.base_url).rstrip("/"))


def test_a_server_that_is_not_there(store: str) -> None:
    """502, and for a call an outcome in the journal."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/mcp"
        said: list[str] = []
        note: Callable[[str], None] = said.append
        orchestrator = Orchestrator(store=store)
        app = create_proxy(orchestrator, Options(name="gone"), url, say=note)
        with serving(app) as here:
            answer = httpx.post(f"{here}/mcp", json=call("echo"), headers=BOTH, trust_env=False)
        inner = [run for run in orchestrator.store.runs() if run.parent is not None]
        orchestrator.store.close()

    assert answer.status_code == 502
    assert said == ["the MCP server does not answer: ConnectError"]
    assert [run.status for run in inner] == ["FAILED"]
