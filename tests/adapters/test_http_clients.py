"""Requests to model providers beside the gate: halted where all must be governed, else noted."""

from __future__ import annotations

import asyncio
import http.client
import inspect
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import httpx2
import pytest
import requests
from langchain_openai import ChatOpenAI

from oao_harness import ExecutionReport, Orchestrator, StrictPolicy, model, tool
from oao_harness.adapters.providers import canonical, is_provider_request
from oao_harness.runtime.outside import is_watched
from oao_hookspecs import ModelCall, RunFinished, RunView, ToolCall, hookimpl
from pytest_oao.testing import OpenAIServer

STRICT = StrictPolicy(max_tokens=None, max_steps=None, max_tool_calls=None, timeout_seconds=20, require_governed=True)
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "q"}]}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(respond=lambda body: "answer") as started:
        yield started


def post_httpx(url: str) -> None:
    httpx.post(url, json=REQUEST)


def post_httpx2(url: str) -> None:
    httpx2.post(url, json=REQUEST)


def post_requests(url: str) -> None:
    requests.post(url, json=REQUEST, timeout=5)


def post_urllib(url: str) -> None:
    urllib.request.urlopen(urllib.request.Request(url, data=b'{"messages": []}'), timeout=5).close()


def post_http_client(url: str) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    connection.request("POST", f"{parts.path}?{parts.query}", body=b'{"messages": []}')
    connection.getresponse().read()
    connection.close()


async def apost_httpx(url: str) -> None:
    async with httpx.AsyncClient() as client:
        await client.post(url, json=REQUEST)


async def apost_httpx2(url: str) -> None:
    async with httpx2.AsyncClient() as client:
        await client.post(url, json=REQUEST)


async def apost_aiohttp(url: str) -> None:
    async with aiohttp.ClientSession() as client, client.post(url, json=REQUEST) as response:
        await response.read()


async def apost_aiohttp_with_a_base(url: str) -> None:
    parts = urlsplit(url)
    async with (
        aiohttp.ClientSession(f"{parts.scheme}://{parts.netloc}") as client,
        client.post(f"{parts.path}?{parts.query}", json=REQUEST) as response,
    ):
        await response.read()


SYNC = [post_httpx, post_httpx2, post_requests, post_urllib, post_http_client]
ASYNC = [apost_httpx, apost_httpx2, apost_aiohttp, apost_aiohttp_with_a_base]


def in_a_tool(send: Callable[[str], Any], url: str, policy: Any) -> ExecutionReport:
    """Run an agent whose tool sends a request, and which goes on whatever happens."""
    if inspect.iscoroutinefunction(send):

        @tool(name="fetch")
        async def afetch() -> None:
            await send(url)

        async def aagent(task: object) -> str:
            try:
                await afetch()
            except BaseException:
                pass
            return "went on"

        return asyncio.run(Orchestrator(policy).run_async(aagent, "x"))

    @tool
    def fetch() -> None:
        send(url)

    def agent(task: object) -> str:
        try:
            fetch()
        except BaseException:
            pass
        return "went on"

    return Orchestrator(policy).run(agent, "x")


@pytest.mark.parametrize("send", [*SYNC, *ASYNC])
def test_a_provider_may_not_be_asked_beside_the_gate(send: Any, server: OpenAIServer) -> None:
    """The request is not sent, and the run has failed although the agent went on; the query is not shown."""
    report = in_a_tool(send, f"{server.url}/chat/completions?key=secret", STRICT)

    assert not server.requests
    assert report.status == "FAILED"
    assert report.violation is not None
    assert report.violation["rule"] == "ungoverned-call"
    host = urlsplit(server.url).netloc
    assert report.violation["reason"].startswith(f"POST {host}/v1/chat/completions outside of a governed model call; ")


@pytest.mark.parametrize("send", [*SYNC, *ASYNC])
def test_without_a_policy_that_wants_it_the_request_goes_on_and_is_noted_once(send: Any, server: OpenAIServer) -> None:
    """Once for each host and path, however often it is sent."""
    if inspect.iscoroutinefunction(send):

        async def atwice(url: str) -> None:
            await send(url)
            await send(url)

        report = in_a_tool(atwice, f"{server.url}/chat/completions?key=secret", None)
    else:
        report = in_a_tool(lambda url: (send(url), send(url)), f"{server.url}/chat/completions?key=secret", None)

    assert len(server.requests) == 2
    assert report.status == "SUCCESS"
    note = f"ungoverned-call: POST {urlsplit(server.url).netloc}/v1/chat/completions outside of a governed model call"
    assert report.ungoverned == [note]


@pytest.mark.parametrize("send", [*SYNC, *ASYNC])
def test_a_governed_model_call_may_ask(send: Any, server: OpenAIServer) -> None:
    """A function marked as a model is the governed way, with any client."""
    url = f"{server.url}/chat/completions"
    if inspect.iscoroutinefunction(send):

        @model
        async def aask(prompt: str) -> str:
            await send(url)
            return "x"

        report = asyncio.run(Orchestrator(STRICT).run_async(aask, "q"))
    else:

        @model
        def ask(prompt: str) -> str:
            send(url)
            return "x"

        report = Orchestrator(STRICT).run(ask, "q")

    assert report.error is None
    assert (report.model_calls, len(server.requests)) == (1, 1)


def test_a_tool_inside_of_a_model_call_may_not_ask(server: OpenAIServer) -> None:
    """The innermost governed call counts."""

    @tool
    def fetch() -> None:
        httpx.post(f"{server.url}/chat/completions", json=REQUEST)

    @model
    def ask(prompt: str) -> str:
        fetch()
        return "x"

    report = Orchestrator(STRICT).run(ask, "q")

    assert str(report.error).startswith("ungoverned-call: ")
    assert not server.requests


def test_a_run_inside_of_a_model_call_may_not_ask(server: OpenAIServer) -> None:
    """The model call is the outer run's; what the inner agent sends was judged by nobody."""

    @tool
    def unused() -> None: ...

    def inner(task: object) -> object:
        return httpx.post(f"{server.url}/chat/completions", json=REQUEST) if task else unused()

    @model
    def ask(prompt: str) -> str:
        return str(Orchestrator().run(inner, "x").status)

    report = Orchestrator(STRICT).run(ask, "q")

    assert str(report.error).startswith("ungoverned-call: ")
    assert not server.requests


@pytest.mark.parametrize("streaming", [False, True])
def test_the_models_of_a_framework_may_ask(server: OpenAIServer, streaming: bool) -> None:
    """ChatOpenAI, whole and chunk by chunk, sync and async."""

    def agent(task: str) -> str:
        chat = ChatOpenAI(base_url=server.url, api_key="any", model="m", streaming=streaming, max_retries=0)
        return str(chat.invoke(task).text) + "".join(str(chunk.text) for chunk in chat.stream(task))

    async def aagent(task: str) -> str:
        chat = ChatOpenAI(base_url=server.url, api_key="any", model="m", streaming=streaming, max_retries=0)
        return str((await chat.ainvoke(task)).text) + "".join([str(chunk.text) async for chunk in chat.astream(task)])

    reports = [Orchestrator(STRICT).run(agent, "q"), asyncio.run(Orchestrator(STRICT).run_async(aagent, "q"))]

    assert [report.error for report in reports] == [None, None]
    assert [report.final_output for report in reports] == ["answeranswer"] * 2
    assert len(server.requests) == 4


def test_between_two_chunks_of_a_stream_the_consumer_may_not_ask(server: OpenAIServer) -> None:
    """The model's frame is around each chunk, not around what the agent does with it."""

    def agent(task: str) -> None:
        chat = ChatOpenAI(base_url=server.url, api_key="any", model="m", max_retries=0)
        for _ in chat.stream(task):
            httpx.post(f"{server.url}/chat/completions", json=REQUEST)

    report = Orchestrator(STRICT).run(agent, "q")

    assert str(report.error).startswith("ungoverned-call: ")
    assert len(server.requests) == 1


def test_other_services_are_not_touched(server: OpenAIServer) -> None:
    """A tool's own HTTP, also to the host of a model that was asked before."""

    def everything(url: str) -> None:
        ChatOpenAI(base_url=url, api_key="any", model="m", max_retries=0).invoke("q")
        for get in (httpx.get, httpx2.get, requests.get):
            assert get(f"{url}/models").status_code == 200
        assert httpx.post(f"{url}/orders", json={}).status_code == 404
        assert requests.post(f"{url}/orders", json={}, timeout=5).status_code == 404

    report = in_a_tool(everything, server.url, STRICT)

    assert report.error is None
    assert report.ungoverned == []
    assert len(server.requests) == 1


def test_a_route_of_ones_own_is_learned_from_governed_calls(server: OpenAIServer) -> None:
    """What a governed model call posted to is a model's, whatever its path is called."""
    url = f"{server.url}/our/own/path"

    @model
    def ask(prompt: str) -> str:
        return str(httpx.post(url, json={}).status_code)

    before = in_a_tool(post_httpx, url, STRICT)
    Orchestrator(STRICT).run(ask, "q")
    after = in_a_tool(post_requests, url, STRICT)

    assert before.error is None
    assert str(after.error).startswith("ungoverned-call: POST ")


def test_a_socket_to_a_model_that_was_asked_before_is_refused(server: OpenAIServer) -> None:
    """Below HTTP the address is all there is; `localhost` and `127.0.0.1` are the same machine."""
    port = int(urlsplit(server.url).port or 0)

    def connect(url: str) -> None:
        ChatOpenAI(base_url=url, api_key="any", model="m", max_retries=0).invoke("q")
        socket.create_connection(("localhost", port), timeout=5).close()

    report = in_a_tool(connect, server.url, STRICT)

    assert str(report.error).startswith(f"ungoverned-call: connect to localhost:{port} outside of")


def test_an_address_is_known_by_the_name_it_was_looked_up_by() -> None:
    """Who connects names an address only; nothing is sent here, it is a reserved one."""
    from oao_harness.adapters.providers import remember_addresses

    remember_addresses("api.openai.com", ["192.0.2.7"])

    def connect(url: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"x", ("192.0.2.7", 443))

    refused = in_a_tool(connect, "", STRICT)
    remember_addresses("another.example", ["192.0.2.7"])
    shared = in_a_tool(connect, "", STRICT)

    assert str(refused.error).startswith("ungoverned-call: connect to api.openai.com:443 outside of")
    assert shared.violation is None


@pytest.mark.parametrize(
    ("method", "url", "expected"),
    [
        ("GET", "https://api.openai.com/v1/models", True),
        ("POST", "https://eu.api.openai.com/v1/files", True),
        ("POST", "https://API.Anthropic.com./v1/messages", True),
        ("POST", "https://mine.openai.azure.com/openai/deployments/d/chat/completions", True),
        ("POST", "https://bedrock-runtime.eu-central-1.amazonaws.com/model/m/converse", True),
        ("POST", "https://europe-west4-aiplatform.googleapis.com/v1/x", True),
        ("GET", "http://127.0.0.1:11434/api/tags", True),
        ("POST", "http://vllm.corp:8000/v1/completions", True),
        ("POST", "http://gateway.corp/v1beta/models/gemini-x:streamGenerateContent", True),
        ("POST", "http://gateway.corp/llm/model/anthropic.claude-v1%3A0/converse-stream", True),
        ("POST", "http://gateway.corp/v1/messages/", True),
        ("GET", "http://gateway.corp/v1/messages", False),
        ("POST", "http://shop.example/v1/messages/7/read", False),
        ("POST", "http://shop.example/v1/orders", False),
        ("POST", "http://shop.example/notchat/completionsx", False),
        ("GET", "https://openai.com/", False),
        ("POST", "https://api.openai.com.evil.example/x", False),
        ("POST", "https://s3.eu-central-1.amazonaws.com/bucket", False),
    ],
)
def test_what_is_a_provider(method: str, url: str, expected: bool) -> None:
    """Known hosts whatever the path; elsewhere a POST to the path of a known protocol."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]

    assert is_provider_request(method, canonical(parts.hostname or ""), port, parts.path) is expected


@pytest.mark.parametrize(
    ("spelled", "host"),
    [
        ("LOCALHOST", "localhost"),
        ("127.0.0.1", "localhost"),
        ("127.9.9.9", "localhost"),
        ("[::1]", "localhost"),
        ("::ffff:127.0.0.1", "localhost"),
        ("0.0.0.0", "localhost"),
        ("a.localhost", "localhost"),
        ("fe80::1%eth0", "fe80::1"),
        ("Example.COM.", "example.com"),
    ],
)
def test_a_host_has_one_spelling(spelled: str, host: str) -> None:
    """Or an address would hide a name."""
    assert canonical(spelled) == host


def test_a_policy_may_ask_a_model_by_itself(server: OpenAIServer) -> None:
    """What a policy or a listener sends is not sent by the agent, sync or async."""

    class Judge:
        name = "judge"

        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> None:
            assert not is_watched()
            httpx.post(f"{server.url}/chat/completions", json=REQUEST)
            subprocess.run([sys.executable, "-c", ""], check=True, timeout=20)

        @hookimpl
        async def oao_decide_model_call(self, call: ModelCall, run: RunView) -> None:
            await apost_httpx(f"{server.url}/chat/completions")

        @hookimpl
        async def oao_run_finished(self, event: RunFinished, run: RunView) -> None:
            await apost_aiohttp(f"{server.url}/chat/completions")

    @tool
    def work() -> bool:
        return is_watched()

    @model
    def ask(prompt: str) -> bool:
        return work()

    report = Orchestrator([Judge(), STRICT]).run(ask, "q")

    assert report.error is None
    assert report.final_output is True
    assert len(server.requests) == 3


def test_outside_of_runs_nothing_is_looked_at(server: OpenAIServer) -> None:
    """The patches are inert, and signatures are as they were."""
    Orchestrator(STRICT)
    for send in SYNC:
        send(f"{server.url}/chat/completions")
    for asend in ASYNC:
        asyncio.run(asend(f"{server.url}/chat/completions"))

    assert len(server.requests) == len(SYNC) + len(ASYNC)
    assert list(inspect.signature(httpx.HTTPTransport.handle_request).parameters) == ["self", "request"]
    assert list(inspect.signature(http.client.HTTPConnection.putrequest).parameters) == [
        "self", "method", "url", "skip_host", "skip_accept_encoding",
    ]  # fmt: skip
    assert list(inspect.signature(socket.getaddrinfo).parameters)[:2] == ["host", "port"]
    assert inspect.iscoroutinefunction(aiohttp.ClientSession._request)
