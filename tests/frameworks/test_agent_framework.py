"""Microsoft's agent-framework, in every way that it can be asked."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "agent_framework._agents", reason="agent-framework-core is not installed: it has an environment of its own in CI"
)

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatResponse,
    Content,
    FunctionInvocationContext,
    FunctionInvocationLayer,
    FunctionTool,
    Message,
    WorkflowBuilder,
    tool,
)
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient

from oao_harness import MemoryStore, Orchestrator
from oao_harness.errors import FrameworkError
from oao_hookspecs import Allow, Decision, Deny, ToolCall, hookimpl
from pytest_oao.testing.adapter import AdapterCase, AdapterConformance
from pytest_oao.testing.openai_server import OpenAIServer
from pytest_oao.testing.replies import TextReply, ToolCallReply
from pytest_oao.testing.replies import ToolCall as Asked


class AgentFramework(AdapterCase):
    """Agents whose client speaks Chat Completions."""

    name = "agent-framework"
    client: type[Any] = OpenAIChatCompletionClient

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        client = self.client(model="scripted", base_url=url, api_key="k")
        return Agent(client=client, name="assistant", tools=[tool(one) for one in tools])

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        async def ask(task: str) -> str:
            running = agent.run(task, stream=True)
            async for _ in running:
                pass
            return str((await running.get_final_response()).text)

        return ask

    def text(self, output: object) -> str:
        return str(getattr(output, "text", output))


class Responses(AgentFramework):
    """Agents whose client speaks Responses."""

    client = OpenAIChatClient


class TestChatCompletions(AdapterConformance):
    """What every adapter promises."""

    case = AgentFramework()


class TestResponses(AdapterConformance):
    """As above, over the other protocol."""

    case = Responses()


# What is particular


class _Forbid:
    """Denies a tool by name."""

    name = "forbid"

    def __init__(self, tool: str) -> None:
        self._tool = tool

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision:
        return Deny(rule="forbid", reason=f"no {call.name}") if call.name == self._tool else Allow()


@pytest.fixture
def ran() -> list[str]:
    """What of the tools really ran."""
    return []


def _tools(ran: list[str]) -> list[Any]:
    @tool
    def add(a: int, b: int) -> int:
        "Add two numbers."
        ran.append("add")
        return a + b

    @tool
    async def danger(x: str) -> str:
        "Do what must not be done."
        ran.append("danger")
        return "BOOM"

    return [add, danger]


def _agent(url: str, tools: Sequence[Any], name: str = "assistant", **named: Any) -> Any:
    client = OpenAIChatCompletionClient(model="scripted", base_url=url, api_key="k")
    return Agent(client=client, name=name, tools=list(tools), **named)


def _asks(name: str, **arguments: object) -> ToolCallReply:
    return ToolCallReply(calls=(Asked(name=name, arguments=arguments),))


def _workflow(url: str, ran: list[str]) -> Any:
    first, second, third = (_agent(url, _tools(ran), name) for name in ("first", "second", "third"))
    return WorkflowBuilder(start_executor=first).add_fan_out_edges(first, [second, third]).build()


def test_workflow(ran: list[str]) -> None:
    """The agents of a workflow are governed, also those that work side by side."""
    with OpenAIServer(replies=[_asks("add", a=1, b=2), *(TextReply(text="done"),) * 3]) as server:
        report = Orchestrator(store=MemoryStore()).run(_workflow(server.url, ran), "go")

    assert report.status == "SUCCESS", report.error
    assert (report.model_calls, report.tool_calls, report.ungoverned) == (4, 1, [])
    assert "done" in str(report.final_output)


@pytest.mark.parametrize("stream", [False, True])
def test_workflow_denied(ran: list[str], stream: bool) -> None:
    """A denial in one branch of a workflow ends all of it, soon."""
    replies = [TextReply(text="first"), *(_asks("danger", x="now"),) * 6]
    with OpenAIServer(replies=replies) as server:
        workflow = _workflow(server.url, ran)

        async def read(task: str) -> str:
            async for _ in workflow.run(task, stream=True):
                pass
            return "through"

        began = time.monotonic()
        orchestrator = Orchestrator([_Forbid("danger")], MemoryStore())
        report = asyncio.run(orchestrator.run_async(read if stream else workflow, "go"))

    assert (report.violation or {}).get("rule") == "forbid", report.error
    assert ran == []
    assert len(server.requests) <= 3
    assert time.monotonic() - began < 5


def test_agent_as_tool(ran: list[str]) -> None:
    """An agent that is another one's tool is a tool call, and its own calls are governed too."""
    replies = [_asks("inner", task="add"), _asks("danger", x="now"), TextReply(text="done")]
    with OpenAIServer(replies=replies) as server:
        outer = _agent(server.url, [_agent(server.url, _tools(ran), "inner").as_tool()])
        report = Orchestrator([_Forbid("danger")], MemoryStore()).run(outer, "go")

    assert (report.violation or {}).get("rule") == "forbid", report.error
    assert report.tool_usage.get("inner") == 1
    assert (ran, len(server.requests)) == ([], 2)


def test_called_by_hand(ran: list[str]) -> None:
    """A tool that the program calls or invokes itself is governed, sync and async; once for each call."""
    add, danger = _tools(ran)

    async def program(task: str) -> list[object]:
        direct = add(1, 2)
        contents = await add.invoke(arguments={"a": 3, "b": 4})
        raw = await add.invoke(a=5, b=6, skip_parsing=True)
        return [direct, contents[0].text, raw, await danger("x")]

    report = asyncio.run(Orchestrator(store=MemoryStore()).run_async(program, "go", tools=[add, danger]))
    denied = asyncio.run(Orchestrator([_Forbid("danger")], MemoryStore()).run_async(program, "go", tools=[add, danger]))

    assert report.result == [3, "7", 11, "BOOM"], report.error
    assert report.tool_usage == {"add": 3, "danger": 1}
    assert (denied.violation or {}).get("rule") == "forbid"
    assert ran == ["add", "add", "add", "danger", "add", "add", "add"]


def test_own_tool_class(ran: list[str]) -> None:
    """A tool whose `invoke` its author overrode is governed there, once."""

    class Own(FunctionTool):
        async def invoke(self, **named: Any) -> Any:
            ran.append("own")
            return await super().invoke(**named)

    own = Own(name="add", description="Add.", func=_tools(ran)[0].func)
    with OpenAIServer(replies=[_asks("add", a=1, b=2), TextReply(text="done")]) as server:
        report = Orchestrator(store=MemoryStore()).run(_agent(server.url, [own]), "go")

    assert (report.status, report.tool_usage, ran) == ("SUCCESS", {"add": 1}, ["own", "add"]), report.error


def test_own_client(ran: list[str]) -> None:
    """A chat client of one's own is governed; a denial is not swallowed by middleware that catches errors."""

    class Own(FunctionInvocationLayer, BaseChatClient):
        def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **named: Any) -> Any:
            call = Content.from_function_call(call_id="c1", name="danger", arguments='{"x": "now"}')

            async def whole() -> ChatResponse:
                return ChatResponse(messages=[Message(role="assistant", contents=[call])])

            return whole()

    async def forgiving(context: FunctionInvocationContext, call_next: Any) -> None:
        with suppress(Exception):
            await call_next()

    agent = Agent(client=Own(), name="own", tools=_tools(ran), middleware=[forgiving])
    report = Orchestrator([_Forbid("danger")], MemoryStore()).run(agent, "go")

    assert (report.violation or {}).get("rule") == "forbid", report.error
    assert (report.model_calls, report.tool_calls, ran) == (1, 0, [])
    assert report.ungoverned == []


def test_asks_a_person(ran: list[str]) -> None:
    """The framework's own approval is what it is: the agent says what it would do, and nothing ran."""
    add = tool(approval_mode="always_require")(_tools(ran)[0].func)
    with OpenAIServer(replies=[_asks("add", a=1, b=2)]) as server:
        report = Orchestrator(store=MemoryStore()).run(_agent(server.url, [add]), "go")

    assert report.status == "SUCCESS", report.error
    assert "user_input_requests" in str(report.final_output)
    assert ran == []


_MCP_SERVER = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("numbers")
@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
server.run()
"""


def test_mcp(tmp_path: Path) -> None:
    """A tool of an MCP server is one tool call, by the agent or by hand."""
    pytest.importorskip("mcp.server.mcpserver")
    pytest.importorskip("tenacity", reason="the framework's MCP tools need it")
    from agent_framework import MCPStdioTool

    script = tmp_path / "mcp_of_numbers.py"
    script.write_text(_MCP_SERVER)
    store = MemoryStore()
    with OpenAIServer(replies=[_asks("add", a=1, b=2), TextReply(text="done")]) as server:
        url = server.url

        async def program(task: str) -> str:
            async with MCPStdioTool(name="numbers", command=sys.executable, args=[str(script)]) as numbers:
                answer = await _agent(url, [numbers]).run(task)
                by_hand = await numbers.call_tool("add", a=3, b=4)
                return f"{answer.text} {by_hand[0].text}"

        report = asyncio.run(Orchestrator(store=store).run_async(program, "go", tools=[MCPStdioTool]))

    assert report.result in {"done 7", 'done {"result": 7}'}, report.error
    assert report.tool_usage == {"add": 2}
    assert report.model_calls == 2
    # The program starts the server itself, and nobody can tell what a process does.
    assert [text.partition(":")[0] for text in report.ungoverned] == ["ungoverned-process"]


def test_older_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that was never tried is not governed by halves."""
    from oao_harness.adapters import agent_framework_models, requiring

    monkeypatch.setattr(requiring, "_installed", lambda _: "1.9.4")
    with pytest.raises(FrameworkError, match=r"agent-framework-core 1\.9\.4 .* 1\.23 or newer"):
        agent_framework_models.install()


def test_another_model(ran: list[str]) -> None:
    """A run that is forked asks the other model from there on."""
    store = MemoryStore()
    orchestrator = Orchestrator(store=store)
    with OpenAIServer(replies=[TextReply(text="one"), TextReply(text="two")]) as server:
        first = orchestrator.run(_agent(server.url, []), "go")
        forked = orchestrator.fork(first.execution_id, _agent(server.url, []), 1, model="other")
        asked = [request["model"] for request in server.requests]

    assert forked.status == "SUCCESS", forked.error
    assert asked == ["scripted", "other"]


def test_functional_workflow(ran: list[str]) -> None:
    """A workflow that is written as a function is driven as others are, and so is an agent made of it."""
    from agent_framework import workflow

    @workflow
    async def steps(task: str) -> str:
        first = await _agent(server.url, _tools(ran)).run(task)
        return f"{first.text}!"

    replies = [_asks("add", a=1, b=2), TextReply(text="done")]
    with OpenAIServer(replies=replies) as server:
        report = Orchestrator(store=MemoryStore()).run(steps.build(), "go")
    with OpenAIServer(replies=[_asks("danger", x="now")]) as server:
        denied = Orchestrator([_Forbid("danger")], MemoryStore()).run(steps.build().as_agent(name="steps"), "go")

    assert (report.final_output, report.tool_usage, report.ungoverned) == ("done!", {"add": 1}, []), report.error
    assert (denied.violation or {}).get("rule") == "forbid", denied.error
    assert (ran, denied.ungoverned) == (["add"], [])
