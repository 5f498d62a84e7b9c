"""32 ways around the gate, one small function each. Source: the bypass matrix of the interception research."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import httpx2
import openai
import requests
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, StructuredTool
from langchain_openai import ChatOpenAI

from oao_harness import guard
from oao_harness.runtime import context
from pytest_oao.testing import OpenAIServer
from tests.adapters.scripted import ScriptedStream, says
from tests.bypasses.table import AUDIT, GUARD, HTTP, LATCH, LEAF, NONE, attempt, in_async

EXECUTED: list[str] = []
"""The denied things that ran after all."""

EVIL = {"model": "evil", "messages": [{"role": "user", "content": "evil"}]}
BODY = b'{"model": "evil", "messages": [{"role": "user", "content": "evil"}]}'
HEADERS = {"Content-Type": "application/json"}


def _danger(x: str) -> str:
    """Do harm."""
    EXECUTED.append("danger")
    return x


async def _adanger(x: str) -> str:
    """Do harm."""
    EXECUTED.append("danger")
    return x


danger = StructuredTool.from_function(_danger, _adanger, name="danger")


@guard(name="danger")
def guarded(x: str) -> str:
    """Do harm."""
    EXECUTED.append("danger")
    return x


@guard(name="danger")
async def aguarded(x: str) -> str:
    """Do harm."""
    EXECUTED.append("danger")
    return x


guarded_tool = StructuredTool.from_function(guarded, aguarded, name="danger")


class GuardedTool(BaseTool):
    name: str = "danger"
    description: str = "d"

    @guard(name="danger")
    def _run(self, x: str) -> str:
        EXECUTED.append("danger")
        return x

    @guard(name="danger")
    async def _arun(self, x: str) -> str:
        EXECUTED.append("danger")
        return x


class OverridingTool(BaseTool):
    name: str = "danger"
    description: str = "d"

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> str:
        EXECUTED.append("danger")
        return "x"

    async def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> str:
        EXECUTED.append("danger")
        return "x"

    def _run(self, x: str) -> str:
        EXECUTED.append("danger")
        return x


def _answer(_messages: object) -> Any:
    EXECUTED.append("evil model")
    return says("evil")


def evil_model() -> ScriptedStream:
    return ScriptedStream(script=_answer, model="evil")


def evil_chat(server: OpenAIServer) -> ChatOpenAI:
    return ChatOpenAI(base_url=server.url, api_key="any", model="evil", max_retries=0)


def url(server: OpenAIServer) -> str:
    return f"{server.url}/chat/completions"


def in_thread(work: Callable[[], Any]) -> Any:
    """Run in a raw thread; raise what it raises."""
    found: list[Any] = []

    def target() -> None:
        try:
            found.append((work(), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=target)
    thread.start()
    thread.join(20)
    result, error = found[0]
    if error is not None:
        raise error
    return result


def unwrapped(function: Any) -> Any:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


# Tools


@attempt("baseline: the model asks for a denied tool", LEAF, "tools.deny")
def asked_by_the_model(_: OpenAIServer) -> None:
    raise AssertionError("made by the model, not by a tool")


asked_by_the_model.in_sync = asked_by_the_model.in_async = None


@attempt("nested `tool.invoke` inside of an allowed tool", LEAF, "tools.deny")
def nested(_: OpenAIServer) -> Any:
    return danger.invoke({"x": "1"})


@in_async(nested)
async def anested(_: OpenAIServer) -> Any:
    return await danger.ainvoke({"x": "1"})


@attempt("nested with `callbacks=[]`", LEAF, "tools.deny")
def without_callbacks(_: OpenAIServer) -> Any:
    return danger.invoke({"x": "1"}, {"callbacks": []})


@in_async(without_callbacks)
async def awithout_callbacks(_: OpenAIServer) -> Any:
    return await danger.ainvoke({"x": "1"}, {"callbacks": []})


@attempt("nested in a raw `threading.Thread`", LEAF, "tools.deny")
def nested_in_thread(_: OpenAIServer) -> Any:
    return in_thread(lambda: danger.invoke({"x": "1"}))


@attempt("nested in a `ThreadPoolExecutor`", LEAF, "tools.deny")
def nested_in_executor(_: OpenAIServer) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(danger.invoke, {"x": "1"}).result(20)


@in_async(nested_in_executor)
async def anested_in_executor(_: OpenAIServer) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, danger.invoke, {"x": "1"})


@attempt("nested in an empty `contextvars.Context()`", LEAF, "tools.deny")
def in_an_empty_context(_: OpenAIServer) -> Any:
    return contextvars.Context().run(danger.invoke, {"x": "1"})


@in_async(in_an_empty_context)
async def ain_an_empty_context(_: OpenAIServer) -> Any:
    return await asyncio.create_task(danger.ainvoke({"x": "1"}), context=contextvars.Context())


@attempt("nested in an `asyncio.run` of its own in a thread", LEAF, "tools.deny")
def in_a_loop_of_its_own(_: OpenAIServer) -> Any:
    return in_thread(lambda: asyncio.run(danger.ainvoke({"x": "1"})))


@attempt("`tool.func(...)` directly", LEAF, "tools.deny")
def its_func(_: OpenAIServer) -> Any:
    return danger.func(x="1")  # type: ignore[misc]


@in_async(its_func)
async def its_coroutine(_: OpenAIServer) -> Any:
    return await danger.coroutine(x="1")  # type: ignore[misc]


@attempt("`tool._run(...)` directly", LEAF, "tools.deny")
def its_run(_: OpenAIServer) -> Any:
    return danger._run(x="1", config={})


@in_async(its_run)
async def its_arun(_: OpenAIServer) -> Any:
    return await danger._arun(x="1", config={})


@attempt("`__wrapped__` of `_run`", LEAF, "tools.deny")
def unwrapped_run(_: OpenAIServer) -> Any:
    return unwrapped(type(danger)._run)(danger, x="1", config={})


@in_async(unwrapped_run)
async def unwrapped_arun(_: OpenAIServer) -> Any:
    return await unwrapped(type(danger)._arun)(danger, x="1", config={})


@attempt("a custom `BaseTool`: `__wrapped__` of `_run`", GUARD, "tools.deny")
def unwrapped_run_of_a_class(_: OpenAIServer) -> Any:
    return unwrapped(GuardedTool._run)(GuardedTool(), "x")


@in_async(unwrapped_run_of_a_class)
async def unwrapped_arun_of_a_class(_: OpenAIServer) -> Any:
    return await unwrapped(GuardedTool._arun)(GuardedTool(), "x")


@attempt("`tool.__dict__['func']` (reflection)", GUARD, "tools.deny")
def func_by_reflection(_: OpenAIServer) -> Any:
    return guarded_tool.__dict__["func"](x="1")


@in_async(func_by_reflection)
async def coroutine_by_reflection(_: OpenAIServer) -> Any:
    return await guarded_tool.__dict__["coroutine"](x="1")


@attempt("a subclass that overrides `run()`", LEAF, "tools.deny")
def overriding_run(_: OpenAIServer) -> Any:
    return OverridingTool().run("x")


@in_async(overriding_run)
async def overriding_arun(_: OpenAIServer) -> Any:
    return await OverridingTool().arun("x")


@attempt("the original Python function", GUARD, "tools.deny")
def the_function_itself(_: OpenAIServer) -> Any:
    return guarded("1")


@in_async(the_function_itself)
async def the_async_function_itself(_: OpenAIServer) -> Any:
    return await aguarded("1")


@attempt("the denied function registered under another name", GUARD, "tools.deny")
def under_another_name(_: OpenAIServer) -> Any:
    return StructuredTool.from_function(guarded_tool.__dict__["func"], name="nice").invoke({"x": "1"})


@in_async(under_another_name)
async def aunder_another_name(_: OpenAIServer) -> Any:
    function = guarded_tool.__dict__["coroutine"]
    return await StructuredTool.from_function(coroutine=function, name="nice").ainvoke({"x": "1"})


@attempt("`except BaseException`, then go on", LATCH, "tools.deny")
def swallowing(_: OpenAIServer) -> Any:
    try:
        return danger.invoke({"x": "1"})
    except BaseException:
        return "went on"


@in_async(swallowing)
async def aswallowing(_: OpenAIServer) -> Any:
    try:
        return await danger.ainvoke({"x": "1"})
    except BaseException:
        return "went on"


@attempt("`with_fallbacks(exceptions_to_handle=(BaseException,))`", LATCH, "tools.deny")
def falling_back(_: OpenAIServer) -> Any:
    return _with_fallback().invoke("x")


@in_async(falling_back)
async def afalling_back(_: OpenAIServer) -> Any:
    return await _with_fallback().ainvoke("x")


def _with_fallback() -> Any:
    first = RunnableLambda(lambda _: danger.invoke({"x": "1"}), afunc=lambda _: danger.ainvoke({"x": "1"}))
    return first.with_fallbacks([RunnableLambda(lambda _: "fallback")], exceptions_to_handle=(BaseException,))


@attempt("reflection: clear the governor's own state", NONE, "")
def clearing_the_state(_: OpenAIServer) -> Any:
    context._registry.open.clear()
    return contextvars.Context().run(danger.invoke, {"x": "1"})


@in_async(clearing_the_state)
async def aclearing_the_state(_: OpenAIServer) -> Any:
    context._registry.open.clear()
    return await asyncio.create_task(danger.ainvoke({"x": "1"}), context=contextvars.Context())


# Models


@attempt("an own model, nested `.invoke`", LEAF, "no-evil")
def own_model(_: OpenAIServer) -> Any:
    return evil_model().invoke("evil")


@in_async(own_model)
async def aown_model(_: OpenAIServer) -> Any:
    return await evil_model().ainvoke("evil")


@attempt("an own model, `._generate`", LEAF, "no-evil")
def own_generate(_: OpenAIServer) -> Any:
    return evil_model()._generate([HumanMessage("evil")])


@in_async(own_generate)
async def own_agenerate(_: OpenAIServer) -> Any:
    return await evil_model()._agenerate([HumanMessage("evil")])


@attempt("an own model in a raw thread", LEAF, "no-evil")
def own_model_in_thread(_: OpenAIServer) -> Any:
    return in_thread(lambda: evil_model().invoke("evil"))


@attempt("an own model streamed in a thread", LEAF, "no-evil")
def own_stream_in_thread(_: OpenAIServer) -> Any:
    return in_thread(lambda: list(evil_model().stream("evil")))


@in_async(own_stream_in_thread)
def own_astream_in_thread(_: OpenAIServer) -> Any:
    async def drained() -> list[Any]:
        return [chunk async for chunk in evil_model().astream("evil")]

    return in_thread(lambda: asyncio.run(drained()))


@attempt("an own `ChatOpenAI`", LEAF, "no-evil")
def own_chat(server: OpenAIServer) -> Any:
    return evil_chat(server).invoke("evil")


@in_async(own_chat)
async def aown_chat(server: OpenAIServer) -> Any:
    return await evil_chat(server).ainvoke("evil")


# The clients of providers, and providers without a client


@attempt("`ChatOpenAI.root_client`", LEAF, "no-evil")
def root_client(server: OpenAIServer) -> Any:
    return evil_chat(server).root_client.chat.completions.create(**EVIL)


@in_async(root_client)
async def root_async_client(server: OpenAIServer) -> Any:
    return await evil_chat(server).root_async_client.chat.completions.create(**EVIL)


def _ask_openai(server: OpenAIServer) -> Any:
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
        return client.chat.completions.create(**EVIL)  # type: ignore[call-overload]


async def _aask_openai(server: OpenAIServer) -> Any:
    async with openai.AsyncOpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
        return await client.chat.completions.create(**EVIL)  # type: ignore[call-overload]


@attempt("an `openai` client", LEAF, "no-evil")
def openai_client(server: OpenAIServer) -> Any:
    return _ask_openai(server)


@in_async(openai_client)
async def async_openai_client(server: OpenAIServer) -> Any:
    return await _aask_openai(server)


@attempt("an `openai` client in a raw thread", LEAF, "no-evil")
def openai_client_in_thread(server: OpenAIServer) -> Any:
    return in_thread(lambda: _ask_openai(server))


@in_async(openai_client_in_thread)
def async_openai_client_in_thread(server: OpenAIServer) -> Any:
    return in_thread(lambda: asyncio.run(_aask_openai(server)))


@attempt("raw `httpx`", HTTP, "ungoverned-call")
def raw_httpx(server: OpenAIServer) -> Any:
    return httpx.post(url(server), json=EVIL)


@in_async(raw_httpx)
async def araw_httpx(server: OpenAIServer) -> Any:
    async with httpx.AsyncClient() as client:
        return await client.post(url(server), json=EVIL)


@attempt("raw `httpx2`", HTTP, "ungoverned-call")
def raw_httpx2(server: OpenAIServer) -> Any:
    return httpx2.post(url(server), json=EVIL)


@in_async(raw_httpx2)
async def araw_httpx2(server: OpenAIServer) -> Any:
    async with httpx2.AsyncClient() as client:
        return await client.post(url(server), json=EVIL)


@attempt("raw `requests`", HTTP, "ungoverned-call")
def raw_requests(server: OpenAIServer) -> Any:
    return requests.post(url(server), json=EVIL, timeout=20)


@in_async(raw_requests)
async def araw_requests(server: OpenAIServer) -> Any:
    return await asyncio.to_thread(requests.post, url(server), json=EVIL, timeout=20)


@attempt("`urllib.request`", HTTP, "ungoverned-call")
def raw_urllib(server: OpenAIServer) -> None:
    with urllib.request.urlopen(urllib.request.Request(url(server), BODY, HEADERS), timeout=20) as response:
        response.read()


@in_async(raw_urllib)
async def araw_urllib(server: OpenAIServer) -> None:
    await asyncio.to_thread(functools.partial(raw_urllib.do, server))


def _raw_request(server: OpenAIServer) -> tuple[int, bytes]:
    """Return port and request; the model behind the port was asked before, through the gate."""
    ChatOpenAI(base_url=server.url, api_key="any", model="good", max_retries=0).invoke("good")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
    return int(urlsplit(server.url).port or 0), head.encode() + BODY


@attempt("a raw socket to a model that was asked before", AUDIT, "ungoverned-call")
def raw_socket(server: OpenAIServer) -> None:
    port, request = _raw_request(server)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
        one.sendall(request)
        while one.recv(4096):
            pass


@in_async(raw_socket)
async def araw_socket(server: OpenAIServer) -> None:
    port, request = await asyncio.to_thread(_raw_request, server)
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(request)
    await reader.read()
    writer.close()
    await writer.wait_closed()


def _command(server: OpenAIServer) -> list[str]:
    code = f"import urllib.request as u; u.urlopen(u.Request({url(server)!r}, {BODY!r}, {HEADERS!r})).read()"
    return [sys.executable, "-c", code]


@attempt("a subprocess", AUDIT, "ungoverned-process")
def in_a_subprocess(server: OpenAIServer) -> None:
    subprocess.run(_command(server), check=True, timeout=20)


@in_async(in_a_subprocess)
async def ain_a_subprocess(server: OpenAIServer) -> None:
    process = await asyncio.create_subprocess_exec(*_command(server))
    assert await process.wait() == 0
