"""`pytest --oao-policy=strict`: what a test does beside the gate fails it, whatever the code under test swallows."""

from __future__ import annotations

import importlib.util

# Loaded before pytester takes its picture of sys.modules: patches are process-wide, and `httpx` keeps the exceptions of
# the `httpcore` that it saw first.
import httpcore  # noqa: F401
import httpcore2  # noqa: F401
import httpx  # noqa: F401
import httpx2  # noqa: F401
import langchain_openai  # noqa: F401
import openai  # noqa: F401
import pytest

import oao_harness  # noqa: F401
import pytest_oao.session
import pytest_oao.testing  # noqa: F401

HEAD = """
import json, socket, subprocess, sys, urllib.request
import httpx, httpx2, pytest
from urllib.parse import urlsplit
import oao_harness as oao
from langchain_openai import ChatOpenAI
from pytest_oao.testing import OpenAIServer

BODY = {"model": "m", "messages": [{"role": "user", "content": "q"}]}

@pytest.fixture
def server():
    with OpenAIServer(respond=lambda body: "answer") as started:
        yield started

def chat(server):
    return ChatOpenAI(base_url=server.url, api_key="any", model="m", max_retries=0)
"""
SWALLOWED = "the code under test caught this error and went on"


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    (pytester.path / "test_it.py").write_text(HEAD + test)
    return pytester.runpytest_inprocess("-p", "pytest_oao.plugin", "-p", "no:cacheprovider", "-rfE", *options)


@pytest.mark.parametrize("record", ["none", "once"])
@pytest.mark.parametrize(
    ("module", "send"),
    [
        ("httpx", "httpx.post(url, json=BODY)"),
        ("httpx2", "httpx2.post(url, json=BODY)"),
        ("urllib", "urllib.request.urlopen(urllib.request.Request(url, json.dumps(BODY).encode()), timeout=5).close()"),
        ("requests", "__import__('requests').post(url, json=BODY, timeout=5)"),
    ],
)
def test_a_provider_call_beside_the_gate_fails_the_test(
    pytester: pytest.Pytester, module: str, send: str, record: str
) -> None:
    """With every client; nothing is sent, in replay and while recording."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    test = f"""
def test_swallows(server):
    url = server.url + "/chat/completions?key=secret"
    try:
        {send}
    except BaseException:
        pass
    assert not server.requests
"""

    result = run(pytester, test, "--oao-policy=strict", f"--oao-record={record}")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "policy violation: ungoverned-call: POST 127.0.0.1:*/v1/chat/completions outside of a governed model*",
            SWALLOWED,
            "test_it.py::test_swallows*ungoverned-call*",
        ]
    )
    assert not (pytester.path / "recordings").exists()


def test_a_raw_socket_beside_the_gate_fails_the_test(pytester: pytest.Pytester) -> None:
    """To a model that the test asked before, through the gate."""
    test = """
def test_swallows(server):
    chat(server).invoke("q")
    try:
        socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=5).close()
    except BaseException:
        pass
"""

    result = run(pytester, test, "--oao-policy=strict", "--oao-record=once")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["policy violation: ungoverned-call: connect to localhost:*", SWALLOWED])


def test_a_tool_that_asks_a_provider_fails_the_test(pytester: pytest.Pytester) -> None:
    """A tool's frame is not enough."""
    test = """
@oao.tool
def ask_around(url):
    try:
        return httpx.post(url + "/chat/completions", json=BODY).text
    except BaseException:
        return "went on"

def test_swallows(server):
    try:
        ask_around(server.url)
    except BaseException:
        pass
"""

    result = run(pytester, test, "--oao-policy=strict", "--oao-record=once")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["policy violation: ungoverned-call: POST 127.0.0.1:*"])


def test_under_a_policy_that_does_not_want_it_the_call_goes_on(pytester: pytest.Pytester) -> None:
    """It is named in the summary."""
    test = """
def test_raw(server):
    for _ in range(2):
        assert httpx.post(server.url + "/chat/completions", json=BODY).status_code == 200
"""

    result = run(pytester, test, "--oao-policy=standard", "--oao-record=once")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*ungoverned-call: POST 127.0.0.1:*/v1/chat/completions*"])
    assert not (pytester.path / "recordings").exists()


def test_a_model_of_a_framework_is_recorded_and_replayed(pytester: pytest.Pytester) -> None:
    """ChatOpenAI over real HTTP while recording, whole, streamed and async; not one request in replay."""
    test = """
SENT = []
async def everything(server):
    model = chat(server)
    texts = [model.invoke("a").text, "".join(c.text for c in model.stream("b")), (await model.ainvoke("c")).text]
    return [*texts, "".join([c.text async for c in model.astream("d")])]

def test_asks(server):
    import asyncio
    assert asyncio.run(everything(server)) == ["answer"] * 4
    assert httpx.get(server.url + "/models").status_code == 200
    print("SENT", len(server.requests))
"""

    recorded = run(pytester, test, "--oao-policy=strict", "--oao-record=once", "-s")
    replayed = run(pytester, test, "--oao-policy=strict", "-s")

    recorded.assert_outcomes(passed=1)
    recorded.stdout.fnmatch_lines(["*SENT 4", "test_it.py::test_asks*recorded"])
    replayed.assert_outcomes(passed=1)
    replayed.stdout.fnmatch_lines(["*SENT 0", "test_it.py::test_asks*ok*ok"])


def test_processes_of_a_test_are_its_own_and_those_of_an_agent_are_not(pytester: pytest.Pytester) -> None:
    """A test may start what it needs; a tool that does is halted."""
    test = """
@oao.tool
def shell():
    subprocess.run([sys.executable, "-c", ""], check=True, timeout=30)

@oao.tool
def look():
    return 1

def test_needs_a_process():
    subprocess.run([sys.executable, "-c", ""], check=True, timeout=30)
    look()
    subprocess.run([sys.executable, "-c", ""], check=True, timeout=30)

def test_swallows():
    try:
        shell()
    except BaseException:
        pass
"""

    result = run(pytester, test, "--oao-policy=strict", "--oao-record=once")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["policy violation: ungoverned-process: process 'python*' started in tool shell;*"])
