"""`Run.model_override`: live calls go to another model, on the wire too, or they do not go at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, ChatOpenAI

import oao_harness as oao
from oao_harness.errors import RunHalted
from oao_harness.runtime.execute import Ending
from oao_harness.runtime.run import Run
from oao_hookspecs import Ask, Deny, Limits, ModelCall, Price, Principal, ToolCall, hookimpl
from pytest_oao.testing import OpenAIServer, ScriptedModel
from tests.adapters.anthropic_server import AnthropicServer

USER: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(replies=["one", "two", "three", "four"]) as one:
        yield one


@pytest.fixture
def claude() -> Iterator[AnthropicServer]:
    with AnthropicServer() as one:
        yield one


class Sees:
    """Notes the names that policies are asked about, and knows what one model costs."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @hookimpl
    def oao_decide_model_call(self, call: ModelCall) -> Deny | None:
        self.names.append(call.name)
        return Deny(rule="no", reason="no") if call.name == "forbidden" else None

    @hookimpl
    def oao_limits(self) -> Limits:
        return Limits(max_cost_usd=1000.0)

    @hookimpl
    def oao_price(self, call: ModelCall) -> Price | None:
        return Price(input_per_million=1e6, output_per_million=1e6) if call.name == "other" else None


def ask_openai(server: OpenAIServer) -> None:
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
        client.chat.completions.create(model="mine", messages=USER)


def stream_openai(server: OpenAIServer) -> None:
    with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
        list(client.chat.completions.create(model="mine", messages=USER, stream=True))


def ask_openai_async(server: OpenAIServer) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
            await client.chat.completions.create(model="mine", messages=USER, extra_body={"model": "mine"})

    asyncio.run(ask())


def chat(server: OpenAIServer, **options: Any) -> ChatOpenAI:
    options = {"model": "mine", "base_url": server.url, "api_key": "any", "max_retries": 0, **options}
    return ChatOpenAI(**options)


def ask_langchain(server: OpenAIServer) -> None:
    model = chat(server)
    model.invoke("hi")
    assert model.model_name == "mine", "the user's object is as it was"


def ask_langchain_async(server: OpenAIServer) -> None:
    asyncio.run(chat(server).ainvoke("hi"))


def stream_langchain(server: OpenAIServer) -> None:
    list(chat(server).stream("hi"))


def stream_langchain_async(server: OpenAIServer) -> None:
    async def ask() -> None:
        async for _ in chat(server).astream("hi"):
            pass

    asyncio.run(ask())


def ask_bound(server: OpenAIServer) -> None:
    @tool
    def look(at: str) -> str:
        """Look."""
        return at

    chat(server).bind_tools([look]).bind(model="mine").invoke("hi")


STYLES = [
    ask_openai,
    stream_openai,
    ask_openai_async,
    ask_langchain,
    ask_langchain_async,
    stream_langchain,
    stream_langchain_async,
    ask_bound,
]


@pytest.mark.parametrize("ask", STYLES)
def test_the_wire_carries_the_other_model(server: OpenAIServer, ask: Callable[[OpenAIServer], None]) -> None:
    """Judged, priced, written and sent is the other model; the journal says what the agent asked for."""
    sees = Sees()
    orchestrator = oao.Orchestrator(sees)
    run = orchestrator.open_run("session")
    run.model_override = "other"
    ask(server)
    report = orchestrator.close_run(run, Ending(result=None, done=True))
    assert report.status == "SUCCESS", report.error
    assert [request["model"] for request in server.requests] == ["other"]
    assert sees.names == ["other"]
    assert report.cost_usd == report.total_tokens > 0
    [call] = [one for one in orchestrator.store.read(run.execution_id) if one["type"] == "call"]
    assert (call["name"], call["given_name"]) == ("other", "mine")
    assert "given" not in call


@pytest.mark.parametrize("framework", [False, True])
def test_anthropic_too(claude: AnthropicServer, framework: bool) -> None:
    """The other client, and LangChain's model over it."""
    orchestrator = oao.Orchestrator()
    run = orchestrator.open_run("session")
    run.model_override = "claude-other"
    if framework:
        options: Any = {"model": "claude-mine", "base_url": claude.url, "api_key": "any", "max_retries": 0}
        ChatAnthropic(**options).invoke("hi")
    else:
        with anthropic.Anthropic(base_url=claude.url, api_key="any", max_retries=0) as client:
            client.messages.create(model="claude-mine", max_tokens=5, messages=USER)
    assert orchestrator.close_run(run, Ending(result=None, done=True)).status == "SUCCESS"
    assert [request["model"] for request in claude.requests] == ["claude-other"]


def test_runs_inside_of_it_ask_the_other_model_too(server: OpenAIServer) -> None:
    """What holds for a run holds for those that are nested in it, and for no other."""
    orchestrator = oao.Orchestrator()
    run = orchestrator.open_run("session")
    run.model_override = "other"
    from oao_harness.runtime.context import here

    token = here.set(run)
    inner = oao.Orchestrator().run(lambda task: ask_openai(server), "t")
    here.reset(token)
    assert inner.status == "SUCCESS", inner.error
    orchestrator.close_run(run, Ending(result=None, done=True))
    assert oao.Orchestrator().run(lambda task: ask_openai(server), "t").status == "SUCCESS"
    assert [request["model"] for request in server.requests] == ["other", "mine"]


def test_a_policy_judges_the_other_model(server: OpenAIServer) -> None:
    """A model that is not allowed is not asked, whoever chose it."""
    orchestrator = oao.Orchestrator(Sees())
    run = orchestrator.open_run("session")
    run.model_override = "forbidden"
    with pytest.raises(RunHalted, match="no"):
        ask_openai(server)
    orchestrator.close_run(run, Ending(result=None, done=True))
    assert not server.requests


@oao.model(name="code")
def answer(prompt: str) -> str:
    raise AssertionError("the old model was asked")


def ask_azure() -> None:
    AzureChatOpenAI(
        azure_endpoint="http://127.0.0.1:9", api_key="any", api_version="1", azure_deployment="mine", max_retries=0
    ).invoke("hi")  # fmt: skip


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda: answer("hi"), "it is a function of this program"),
        (lambda: ScriptedModel(["no"])("hi"), "it is a function of this program"),
        (lambda: GenericFakeChatModel(messages=iter([AIMessage("no")])).invoke("hi"), "is code of its own"),
        (lambda: list(GenericFakeChatModel(messages=iter([AIMessage("no")])).stream("hi")), "is code of its own"),
        (ask_azure, "has no field that names the model|names its model in its URL"),
    ],
)
def test_what_cannot_be_swapped_is_refused(ask: Callable[[], object], why: str) -> None:
    """A model whose name is code is never asked in place of the other one."""
    orchestrator = oao.Orchestrator()
    run = orchestrator.open_run("session")
    run.model_override = "other"
    with pytest.raises(RunHalted, match=why) as caught:
        ask()
    assert caught.value.rule == "model_override"
    assert "cannot be swapped for 'other'" in caught.value.reason
    report = orchestrator.close_run(run, Ending(result=None, done=True))
    assert report.status == "FAILED"


class Overrides:
    """Chooses the model of a run as it begins, and lets a person decide about payments."""

    def __init__(self, name: str | None) -> None:
        # Not a plain value: those are part of what an approval was given under.
        self.chosen = [name]

    @hookimpl
    def oao_decide_run(self, run: Run) -> None:
        [run.model_override] = self.chosen

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Ask | None:
        return Ask(rule="big", reason="look") if call.name == "pay" else None


def test_what_was_answered_before_is_served_whatever_its_name(server: OpenAIServer) -> None:
    """A resumed run asks the other model from then on, and is served both when it is resumed again."""

    @oao.tool
    def pay(n: int) -> int:
        return n

    def agent(task: object) -> int:
        ask_openai(server)
        pay(1)
        ask_openai(server)
        return pay(2)

    store = oao.Orchestrator(Overrides(None)).store
    report = oao.Orchestrator(Overrides(None), store).run(agent, "t", execution_id="r")
    for _ in range(2):
        assert report.status == "SUSPENDED", report.error
        other = oao.Orchestrator(Overrides("other"), store)
        other.approve(report.approvals[0]["id"], by=Principal(id="alice"))
        report = other.resume("r", agent)
    assert (report.status, report.final_output) == ("SUCCESS", 2), report.error
    assert [request["model"] for request in server.requests] == ["mine", "other"]


def test_a_fork_of_a_fork_serves_what_another_model_said() -> None:
    """Whichever model is asked from there on: what the first fork's model had answered is served, not asked again."""

    def agent(task: object) -> list[str | None]:
        with openai.OpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
            asked = [client.chat.completions.create(model="mine", messages=[*USER, *USER[:at]]) for at in (0, 1)]
            return [one.choices[0].message.content for one in asked]

    with OpenAIServer(replies=["one", "two", "three", "four", "five"]) as server:
        orchestrator = oao.Orchestrator()
        first = orchestrator.run(agent, "t")
        other = orchestrator.fork(first.execution_id, agent, 1, model="other")
        again = orchestrator.fork(other.execution_id, agent, 2)

    assert (again.status, again.error, again.final_output) == ("SUCCESS", None, ["three", "five"])
    assert [request["model"] for request in server.requests] == ["mine", "mine", "other", "other", "mine"]
