"""AutoGen's agents and teams, in every way that they can be asked."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "autogen_agentchat.agents", reason="autogen-agentchat is not installed: it has an environment of its own in CI"
)

from autogen_agentchat.agents import AssistantAgent, CodeExecutorAgent
from autogen_agentchat.base import TaskResult
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat, Swarm
from autogen_agentchat.tools import AgentTool
from autogen_core import CancellationToken
from autogen_core.models import CreateResult, ModelInfo, UserMessage
from autogen_core.tools import FunctionTool, StaticWorkbench, TextResultContent, ToolResult, Workbench
from autogen_ext.code_executors.local import LocalCommandLineCodeExecutor
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient
from autogen_ext.models.replay import ReplayChatCompletionClient
from autogen_ext.tools.code_execution import PythonCodeExecutionTool

from oao_harness import MemoryStore, Orchestrator
from oao_harness.errors import FrameworkError
from oao_hookspecs import Allow, Decision, Deny, ToolCall, hookimpl
from pytest_oao.testing.adapter import AdapterCase, AdapterConformance, recording_of
from pytest_oao.testing.openai_server import OpenAIServer
from pytest_oao.testing.replies import TextReply, ToolCallReply
from pytest_oao.testing.replies import ToolCall as Asked

INFO = ModelInfo(vision=False, function_calling=True, json_output=False, family="unknown", structured_output=False)


def _client(url: str) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(model="scripted", base_url=url, api_key="k", model_info=INFO)


def _assistant(url: str, tools: Sequence[Any], name: str = "assistant", **named: Any) -> AssistantAgent:
    return AssistantAgent(name, _client(url), tools=list(tools), max_tool_iterations=5, **named)


async def _read(events: Any) -> Any:
    last = None
    async for event in events:
        last = event
    return last


class AutoGen(AdapterCase):
    """An assistant with tools."""

    name = "autogen"

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        return _assistant(url, tools)

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        async def ask(task: str) -> str:
            return self.text(await _read(agent.run_stream(task=task)))

        return ask

    def text(self, output: object) -> str:
        return str(output.messages[-1].to_text()) if isinstance(output, TaskResult) else str(output)


class Streaming(AutoGen):
    """Its model answers as a stream."""

    ways = ("async", "stream")

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        return _assistant(url, tools, model_client_stream=True)


class Team(AutoGen):
    """An assistant in a team."""

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        return RoundRobinGroupChat([_assistant(url, tools)], max_turns=1)


class TestAssistant(AdapterConformance):
    """What every adapter promises."""

    case = AutoGen()


class TestStreaming(AdapterConformance):
    """As above, of a client that streams."""

    case = Streaming()


class TestTeam(AdapterConformance):
    """As above, through the runtime of a team."""

    case = Team()


# What is particular


class _Forbid:
    """Denies a tool by name."""

    name = "forbid"

    def __init__(self, tool: str) -> None:
        self._tool = tool

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision:
        # Only when it is to begin: what a model asks for may be more than one thing.
        if call.name == self._tool and not call.proposed:
            return Deny(rule="forbid", reason=f"no {call.name}")
        return Allow()


@pytest.fixture
def ran() -> list[str]:
    """What of the tools really ran."""
    return []


def _tools(ran: list[str]) -> list[Callable[..., Any]]:
    def add(a: int, b: int) -> int:
        "Add two numbers."
        ran.append("add")
        return a + b

    async def danger(x: str) -> str:
        "Do what must not be done."
        ran.append("danger")
        return "BOOM"

    return [add, danger]


def _asks(*names: str) -> ToolCallReply:
    arguments: Mapping[str, Mapping[str, object]] = {"add": {"a": 1, "b": 2}, "danger": {"x": "now"}}
    return ToolCallReply(calls=tuple(Asked(name=name, arguments=arguments.get(name, {})) for name in names))


_DONE = TextReply(text="done")
_SELECTS = TextReply(text="assistant")


def _swarm(url: str, ran: list[str]) -> Any:
    first = _assistant(url, [], "first", handoffs=["second"])
    return Swarm([first, _assistant(url, _tools(ran), "second")], termination_condition=MaxMessageTermination(8))


def _selector(url: str, ran: list[str]) -> Any:
    members = [_assistant(url, _tools(ran)), _assistant(url, _tools(ran), "other")]
    return SelectorGroupChat(members, _client(url), termination_condition=MaxMessageTermination(4))


def _round_robin(url: str, ran: list[str]) -> Any:
    members = [_assistant(url, _tools(ran), "first"), _assistant(url, _tools(ran), "second")]
    return RoundRobinGroupChat(members, termination_condition=TextMentionTermination("done"))


def _nested(url: str, ran: list[str]) -> Any:
    return RoundRobinGroupChat([_round_robin(url, ran)], max_turns=1)


def _as_tool(url: str, ran: list[str]) -> Any:
    client = OpenAIChatCompletionClient(
        model="scripted", base_url=url, api_key="k", model_info=INFO, parallel_tool_calls=False
    )
    return AssistantAgent("outer", client, tools=[AgentTool(_assistant(url, _tools(ran)))])


TEAMS = {
    "round_robin": (_round_robin, [_asks("danger")]),
    "parallel": (_round_robin, [_asks("danger", "add", "danger")]),
    "nested": (_nested, [_asks("danger")]),
    "selector": (_selector, [_SELECTS, _asks("danger")]),
    "swarm": (_swarm, [_asks("transfer_to_second"), _asks("danger")]),
    "as_tool": (
        _as_tool,
        [ToolCallReply(calls=(Asked(name="assistant", arguments={"task": "go"}),)), _asks("danger")],
    ),
}


@pytest.mark.parametrize("how", ["governed", "by_hand", "sync_by_hand"])
@pytest.mark.parametrize("team", TEAMS)
def test_denied_soon(team: str, how: str, ran: list[str]) -> None:
    """A denial ends agents and teams at once: AutoGen waits for ever for what only an `Exception` ends."""
    make, replies = TEAMS[team]

    async def by_hand(task: str) -> object:
        return await make(server.url, ran).run(task=task)

    def sync_by_hand(task: str) -> object:
        return asyncio.run(by_hand(task))

    orchestrator = Orchestrator([_Forbid("danger")], MemoryStore())
    with OpenAIServer(replies=[*replies, *(_DONE,) * 3]) as server:
        began = time.monotonic()
        if how == "by_hand":
            report = asyncio.run(orchestrator.run_async(by_hand, "go"))
        else:
            report = orchestrator.run(sync_by_hand if how == "sync_by_hand" else make(server.url, ran), "go")
        took_s = time.monotonic() - began
        requests = len(server.requests)

    assert (report.violation or {}).get("rule") == "forbid", report.error
    assert "danger" not in ran
    assert requests == len(replies)
    assert took_s < 4


def test_halt_comes_through(ran: list[str]) -> None:
    """Who runs a team gets the halt itself, and its loop ends without tasks that hang."""
    left: list[Any] = []

    async def program(task: str) -> str:
        try:
            await _nested(server.url, ran).run(task=task)
        except BaseException as error:
            await asyncio.sleep(0.02)
            left.extend(task for task in asyncio.all_tasks() if "autogen" in repr(task.get_coro()))
            return type(error).__name__
        return "nothing"

    with OpenAIServer(replies=[_asks("danger"), _DONE]) as server:
        report = asyncio.run(Orchestrator([_Forbid("danger")], MemoryStore()).run_async(program, "go"))

    assert report.status == "FAILED"
    assert left == []


def test_team_goes_on(ran: list[str]) -> None:
    """A swarm hands over, its hand-off is a tool call, and all of it is replayed with the server stopped."""
    store = MemoryStore()
    replies = [_asks("transfer_to_second"), _asks("add"), *(_DONE,) * 8]
    with OpenAIServer(replies=replies) as server:
        live = Orchestrator(store=store).run(_swarm(server.url, ran), "go")
        url = server.url
    played = Orchestrator().replay(_swarm(url, ran), "go", recording_of(store, live))

    assert live.status == played.status == "SUCCESS", played.error
    assert live.tool_usage == {"transfer_to_second": 1, "add": 1}
    assert played.final_output == live.final_output
    assert ran == ["add"]


def test_agent_as_tool(ran: list[str]) -> None:
    """An agent that is another one's tool is a tool call; the answer comes back in a replay."""
    store = MemoryStore()
    replies = [ToolCallReply(calls=(Asked(name="assistant", arguments={"task": "go"}),)), _asks("add"), _DONE, _DONE]
    with OpenAIServer(replies=replies) as server:
        live = Orchestrator(store=store).run(_as_tool(server.url, ran), "go")
        url = server.url
    played = Orchestrator().replay(_as_tool(url, ran), "go", recording_of(store, live))

    assert live.status == played.status == "SUCCESS", (live.error, played.error)
    assert live.tool_usage == {"assistant": 1, "add": 1}
    assert played.final_output == live.final_output
    assert ran == ["add"]


def test_clients_once() -> None:
    """A cache is no client of its own, and is switched off inside of runs; a scripted client is one."""
    scripted = ReplayChatCompletionClient(["one", "two", "three"])
    cached = ChatCompletionCache(scripted)

    async def program(task: str) -> list[object]:
        messages = [UserMessage(content=task, source="user")]
        whole = [(await cached.create(messages)).content for _ in range(2)]
        streamed = [chunk async for chunk in cached.create_stream(messages)]
        return [*whole, streamed[-1].content if isinstance(streamed[-1], CreateResult) else None]

    report = asyncio.run(Orchestrator(store=MemoryStore()).run_async(program, "go"))

    assert report.result == ["one", "two", "three"], report.error
    assert report.model_calls == 3


def test_tools_by_hand(ran: list[str]) -> None:
    """A tool that the program runs itself is governed, whichever way; once for each call."""
    add, danger = (FunctionTool(one, description="A tool.") for one in _tools(ran))

    async def program(task: str) -> list[object]:
        token = CancellationToken()
        found = [await add.run(add.args_type()(a=1, b=2), token), await add.run_json({"a": 3, "b": 4}, token)]
        async with StaticWorkbench([add, danger]) as bench:
            found.append((await bench.call_tool("add", {"a": 5, "b": 6})).to_text())
            found.append((await bench.call_tool("danger", {"x": "now"})).to_text())
        return found

    def go(*policies: object) -> Any:
        return asyncio.run(Orchestrator(policies, MemoryStore()).run_async(program, "go", tools=[add, danger]))

    report, denied = go(), go(_Forbid("danger"))

    assert report.result == [3, 7, "11", "BOOM"], report.error
    assert report.tool_usage == {"add": 3, "danger": 1}
    assert (denied.violation or {}).get("rule") == "forbid"
    assert ran.count("danger") == 1


class _Bench(Workbench):
    """A workbench of one's own, as that of an MCP server is."""

    def __init__(self, ran: list[str]) -> None:
        self._ran = ran

    async def list_tools(self) -> Any:
        schema = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
        return [{"name": "danger", "description": "Do it.", "parameters": schema}]

    async def call_tool(
        self, name: str, arguments: Any = None, cancellation_token: Any = None, call_id: Any = None
    ) -> ToolResult:
        self._ran.append(name)
        return ToolResult(name=name, result=[TextResultContent(content="BOOM")])

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def reset(self) -> None: ...

    async def save_state(self) -> Mapping[str, Any]:
        return {}

    async def load_state(self, state: Mapping[str, Any]) -> None: ...


@pytest.mark.parametrize("denied", [False, True])
def test_workbench(denied: bool, ran: list[str]) -> None:
    """A tool of a workbench that is no list of tools is governed where it is called, and replayed."""
    store = MemoryStore()
    policies = [_Forbid("danger")] if denied else []

    def agent(url: str) -> AssistantAgent:
        return AssistantAgent("assistant", _client(url), workbench=_Bench(ran))

    with OpenAIServer(replies=[_asks("danger")]) as server:
        report = Orchestrator(policies, store).run(agent(server.url), "go")
        url = server.url

    assert (report.status == "FAILED") == denied, report.error
    assert ran == ([] if denied else ["danger"])
    if not denied:
        played = Orchestrator().replay(agent(url), "go", recording_of(store, report))
        assert (played.final_output, ran) == ("BOOM", ["danger"]), played.error


_CODE = "from pathlib import Path\nPath('trace').write_text('ran')\nprint('hello')\n"


@pytest.mark.parametrize("denied", [False, True])
@pytest.mark.parametrize("by", ["agent", "tool"])
def test_code(by: str, denied: bool, tmp_path: Path) -> None:
    """Code that an agent runs is one tool call with the code as argument, of the agent itself or by a tool."""
    name = "execute_code" if by == "agent" else "CodeExecutor"
    store = MemoryStore()
    with OpenAIServer(replies=[ToolCallReply(calls=(Asked(name=name, arguments={"code": _CODE}),))]) as server:
        executor = LocalCommandLineCodeExecutor(work_dir=tmp_path)
        if by == "agent":
            agent: Any = CodeExecutorAgent("coder", executor)
            task: Any = TextMessage(content=f"```python\n{_CODE}```", source="user")
        else:
            agent, task = _assistant(server.url, [PythonCodeExecutionTool(executor)]), "go"
            agent._max_tool_iterations = 1
        report = Orchestrator([_Forbid(name)] if denied else [], store).run(agent, task)

    assert (tmp_path / "trace").exists() is not denied
    assert report.tool_usage == ({} if denied else {name: 1})
    assert (report.status == "FAILED") == denied, report.error
    [call] = [record for record in store.read(report.execution_id) if record.get("kind") == "tool"] or [{}]
    assert denied or "Path('trace')" in str(call["req"])


def test_tool_that_streams(ran: list[str]) -> None:
    """The events of a tool that streams are kept, and come back in a replay."""
    tool = AgentTool(AssistantAgent("inner", ReplayChatCompletionClient(["a", "b"])))
    store = MemoryStore()

    async def program(task: str) -> list[str]:
        events = tool.run_json_stream({"task": task}, CancellationToken())
        return [type(event).__name__ async for event in events]

    live = asyncio.run(Orchestrator(store=store).run_async(program, "go", tools=[tool]))
    played = Orchestrator().replay(program, "go", recording_of(store, live), tools=[tool])

    assert live.result == ["TextMessage", "TextMessage", "TaskResult"], live.error
    assert (played.result, live.tool_usage) == (live.result, {"inner": 1}), played.error


def test_swallowed_in_a_tool(ran: list[str]) -> None:
    """A tool that catches the halt of what it calls gets nothing more past the gate."""
    inner = FunctionTool(_tools(ran)[1], description="Do it.")

    async def forgiving() -> str:
        "Try it."
        for _ in range(3):
            with suppress(BaseException):
                await inner.run_json({"x": "now"}, CancellationToken())
        return "nothing"

    with OpenAIServer(replies=[_asks("forgiving"), _DONE]) as server:
        report = Orchestrator([_Forbid("danger")], MemoryStore()).run(_assistant(server.url, [forgiving]), "go")

    assert (report.violation or {}).get("rule") == "forbid", report.error
    assert (ran, len(server.requests)) == ([], 1)


def test_another_model() -> None:
    """A run that is forked asks the other model from there on."""
    orchestrator = Orchestrator(store=MemoryStore())
    with OpenAIServer(replies=["one", "two"]) as server:
        first = orchestrator.run(_assistant(server.url, []), "go")
        forked = orchestrator.fork(first.execution_id, _assistant(server.url, []), 1, model="other")

    assert forked.status == "SUCCESS", forked.error
    assert [request["model"] for request in server.requests] == ["scripted", "other"]


@pytest.mark.parametrize("install", ["autogen.install_agents", "autogen_models.install", "autogen_tools.install"])
def test_older_is_refused(install: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that was never tried is not governed by halves."""
    import importlib

    from oao_harness.adapters import requiring

    module, _, name = install.partition(".")
    monkeypatch.setattr(requiring, "_installed", lambda _: "0.7.4")
    with pytest.raises(FrameworkError, match=r"0\.7\.4 is installed, and oao governs 0\.7\.5"):
        getattr(importlib.import_module(f"oao_harness.adapters.{module}"), name)()


_MCP_SERVER = """
from mcp.server.fastmcp import FastMCP
server = FastMCP("numbers")
@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b
server.run()
"""


def test_mcp(tmp_path: Path) -> None:
    """A tool of an MCP server's workbench is one tool call."""
    pytest.importorskip("mcp.server.fastmcp", reason="AutoGen speaks MCP by version 1 of its SDK")
    from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams

    script = tmp_path / "mcp_of_numbers.py"
    script.write_text(_MCP_SERVER)
    with OpenAIServer(replies=[_asks("add")]) as server:
        url = server.url

        async def program(task: str) -> str:
            async with McpWorkbench(StdioServerParams(command=sys.executable, args=[str(script)])) as bench:
                result = await AssistantAgent("assistant", _client(url), workbench=bench).run(task=task)
            return str(result.messages[-1].to_text())

        report = asyncio.run(Orchestrator(store=MemoryStore()).run_async(program, "go", tools=[McpWorkbench]))

    assert report.result == "3", report.error
    assert (report.model_calls, report.tool_usage) == (1, {"add": 1})
