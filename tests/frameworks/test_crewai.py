"""CrewAI's crews, agents and flows, in every way that they can be asked."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ.update(
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_TRACING_ENABLED="false",
    CREWAI_DISABLE_VERSION_CHECK="true",
    CREWAI_TESTING="true",
)
pytest.importorskip("crewai.crew", reason="crewai is not installed: it has an environment of its own in CI")

from crewai import LLM, Agent, BaseLLM, Crew, Flow, Process, Task
from crewai.flow.flow import listen, start
from crewai.tools import BaseTool, tool
from crewai.tools.structured_tool import CrewStructuredTool
from pydantic import Field

from oao_harness import MemoryStore, Orchestrator
from oao_harness.errors import FrameworkError
from oao_hookspecs import Allow, Decision, Deny, ToolCall, hookimpl
from pytest_oao.testing.adapter import AdapterCase, AdapterConformance, recording_of
from pytest_oao.testing.openai_server import OpenAIServer
from pytest_oao.testing.replies import TextReply, ToolCallReply
from pytest_oao.testing.replies import ToolCall as Asked


def _llm(url: str, **named: Any) -> LLM:
    return LLM(model="openai/gpt-4o", base_url=url, api_key="k", **named)


def _agent(url: str, tools: Sequence[Any], role: str = "assistant", **named: Any) -> Agent:
    # Its cache serves the same call a second time without the tool.
    fields = {"goal": "to help", "backstory": "none", "cache": False, "llm": _llm(url), **named}
    return Agent(role=role, tools=list(tools), **fields)


def _crew(agent: Agent, **named: Any) -> Crew:
    task = Task(description="{task}", expected_output="an answer", agent=agent)
    return Crew(agents=[agent], tasks=[task], cache=False, **named)


class CrewAI(AdapterCase):
    """A crew of one agent."""

    name = "crewai"

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        return _crew(_agent(url, [tool(one.__name__)(one) for one in tools]))

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        agent.stream = True

        async def ask(task: str) -> str:
            running = await agent.akickoff(inputs={"task": task})
            async for _ in running:
                pass
            return str(running.result.raw)

        return ask

    def text(self, output: object) -> str:
        return str(getattr(output, "raw", output))


class TestCrew(AdapterConformance):
    """What every adapter promises."""

    case = CrewAI()


# What is particular


class _Forbid:
    """Denies a tool by name when it is to begin, not before."""

    name = "forbid"

    def __init__(self, tool: str) -> None:
        self._tool = tool

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision:
        if call.name == self._tool and not call.proposed:
            return Deny(rule="forbid", reason=f"no {call.name}")
        return Allow()


@pytest.fixture
def ran() -> list[str]:
    """What of the tools really ran."""
    return []


def _tools(ran: list[str]) -> list[Any]:
    @tool("add")
    def add(a: int, b: int) -> int:
        "Add two numbers."
        ran.append("add")
        return a + b

    @tool("danger")
    async def danger(x: str) -> str:
        "Do what must not be done."
        ran.append("danger")
        return "BOOM"

    return [add, danger]


def _asks(*names: str) -> ToolCallReply:
    arguments: Mapping[str, Mapping[str, object]] = {
        "add": {"a": 1, "b": 2},
        "danger": {"x": "now"},
        "delegate_work_to_coworker": {"task": "do it", "context": "none", "coworker": "helper"},
    }
    return ToolCallReply(calls=tuple(Asked(name=name, arguments=arguments[name]) for name in names))


_DONE = TextReply(text="done")


def _alone(url: str, ran: list[str]) -> Any:
    return _agent(url, _tools(ran))


def _in_crew(url: str, ran: list[str]) -> Any:
    return _crew(_agent(url, _tools(ran)))


def _in_thread(url: str, ran: list[str]) -> Any:
    agent = _agent(url, _tools(ran))
    first = Task(description="{task}", expected_output="an answer", agent=agent, async_execution=True)
    last = Task(description="then", expected_output="an answer", agent=agent, context=[first])
    return Crew(agents=[agent], tasks=[first, last])


def _delegating(url: str, ran: list[str]) -> Any:
    boss = _agent(url, [], "boss", allow_delegation=True)
    helper = _agent(url, _tools(ran), "helper")
    task = Task(description="{task}", expected_output="an answer", agent=boss)
    return Crew(agents=[boss, helper], tasks=[task])


def _hierarchical(url: str, ran: list[str]) -> Any:
    helper = _agent(url, _tools(ran), "helper")
    task = Task(description="{task}", expected_output="an answer")
    return Crew(agents=[helper], tasks=[task], process=Process.hierarchical, manager_llm=_llm(url))


def _flow(url: str, ran: list[str]) -> Any:
    class Steps(Flow[Any]):
        @start()
        def begin(self) -> str:
            return str(_in_crew(url, ran).kickoff(inputs={"task": "go"}).raw)

        @listen(begin)
        async def end(self, found: str) -> str:
            return f"{found}!"

    return Steps()


class _Scripted(BaseLLM):
    """A user's own LLM, which knows no tool calls: CrewAI reads them out of its text."""

    replies: list[str] = Field(default_factory=list)

    def call(self, messages: Any, *args: Any, **named: Any) -> str:
        return self.replies.pop(0)

    async def acall(self, messages: Any, *args: Any, **named: Any) -> str:
        return self.call(messages)

    def supports_function_calling(self) -> bool:
        return False


_ACTS = 'Thought: I act.\nAction: danger\nAction Input: {"x": "now"}'
_ENDS = "Thought: I know.\nFinal Answer: done"


def _by_text(url: str, ran: list[str]) -> Any:
    return _crew(_agent(url, _tools(ran), llm=_Scripted(model="own", replies=[_ACTS, *(_ENDS,) * 5])))


CREWS = {
    "alone": (_alone, [_asks("danger")]),
    "crew": (_in_crew, [_asks("danger")]),
    "parallel": (_in_crew, [_asks("danger", "danger", "danger")]),
    "in_thread": (_in_thread, [_asks("danger")]),
    "delegating": (_delegating, [_asks("delegate_work_to_coworker"), _asks("danger")]),
    "hierarchical": (_hierarchical, [_asks("delegate_work_to_coworker"), _asks("danger")]),
    "flow": (_flow, [_asks("danger")]),
    "by_text": (_by_text, []),
}


@pytest.fixture(scope="module")
def warm() -> None:
    """CrewAI makes what its flows need when the first one runs, and takes seconds for it."""
    with OpenAIServer(replies=[_DONE]) as server:
        Orchestrator(store=MemoryStore()).run(_flow(server.url, []), "go")


_SOON = [
    *((crew, "sync") for crew in CREWS),
    *((crew, "async") for crew in ("crew", "in_thread", "flow")),
    ("crew", "thread"),
    ("in_thread", "stream"),
]


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(("crew", "how"), _SOON)
def test_denied_soon(crew: str, how: str, ran: list[str]) -> None:
    """A denial ends crews and flows at once, in each of their ways and wherever it is raised."""
    make, replies = CREWS[crew]

    async def by_thread(task: str) -> object:
        return await make(server.url, ran).kickoff_async(inputs={"task": task})

    def by_stream(task: str) -> object:
        made = make(server.url, ran)
        made.stream = True
        running = made.kickoff(inputs={"task": task})
        return [chunk.content for chunk in running]

    orchestrator = Orchestrator([_Forbid("danger")], MemoryStore())
    with OpenAIServer(replies=[*replies, *(_DONE,) * 3]) as server:
        began = time.monotonic()
        if how == "sync":
            report = orchestrator.run(make(server.url, ran), "go")
        elif how == "stream":
            report = orchestrator.run(by_stream, "go")
        else:
            agent = by_thread if how == "thread" else make(server.url, ran)
            report = asyncio.run(orchestrator.run_async(agent, "go"))
        took_s = time.monotonic() - began
        requests = len(server.requests)

    assert (report.violation or {}).get("rule") == "forbid", report.error
    assert ran == []
    assert requests == len(replies)
    assert took_s < 5


@pytest.mark.parametrize("crew", ["alone", "in_thread", "delegating", "flow"])
def test_replayed(crew: str, ran: list[str]) -> None:
    """All of a crew's calls are recorded, and replayed with the server stopped; its tokens too."""
    make = CREWS[crew][0]
    first = [_asks("delegate_work_to_coworker")] if crew == "delegating" else []
    store = MemoryStore()
    with OpenAIServer(replies=[*first, _asks("add"), *(_DONE,) * 3]) as server:
        live = Orchestrator(store=store).run(make(server.url, ran), "go")
        url = server.url
    played = Orchestrator().replay(make(url, ran), "go", recording_of(store, live))

    assert live.status == played.status == "SUCCESS", (live.error, played.error)
    assert live.tool_usage.get("add") == 1
    assert live.tool_usage.get("Delegate work to coworker", 0) == len(first)
    assert (played.final_output, ran) == (live.final_output, ["add"])
    assert live.ungoverned == []
    if crew == "in_thread":
        # What a tool asked models for is not asked in a replay, and CrewAI counts where it asks.
        assert played.result.token_usage == live.result.token_usage
        assert live.result.token_usage.total_tokens == live.total_tokens


def test_by_text(ran: list[str]) -> None:
    """Tools that CrewAI reads out of an answer's text are governed as others are."""
    report = Orchestrator(store=MemoryStore()).run(_by_text("", ran), "go")

    assert report.final_output == "done", report.error
    assert (report.model_calls, report.tool_usage, ran) == (2, {"danger": 1}, ["danger"])


def test_responses(ran: list[str]) -> None:
    """OpenAI's other protocol."""
    store = MemoryStore()

    def crew(url: str) -> Any:
        return _crew(_agent(url, _tools(ran), llm=_llm(url, api="responses")))

    with OpenAIServer(replies=[_asks("add"), _DONE]) as server:
        live = Orchestrator(store=store).run(crew(server.url), "go")
        url = server.url
    played = Orchestrator().replay(crew(url), "go", recording_of(store, live))

    assert (live.final_output, live.tool_usage, live.model_calls) == ("done", {"add": 1}, 2), live.error
    assert (played.final_output, ran) == ("done", ["add"]), played.error


def test_tools_by_hand(ran: list[str]) -> None:
    """A tool that the program runs itself is governed, whichever way; once for each call."""
    add, danger = _tools(ran)

    class Own(BaseTool):
        name: str = "own"
        description: str = "Own."

        def _run(self, x: str) -> str:
            ran.append("own")
            return x

        async def _arun(self, x: str) -> str:
            return self._run(x)

    class Over(Own):
        name: str = "over"

        def run(self, *args: Any, **named: Any) -> Any:
            return super().run(*args, **named)

    def plain(x: str) -> str:
        "Made of a function."
        ran.append("plain")
        return x

    structured = CrewStructuredTool.from_function(plain)

    async def program(task: str) -> list[object]:
        one, two = Own(), Over()
        return [
            add.run(a=1, b=2),
            add.func(3, 4),
            await danger.arun(x="a"),
            await asyncio.to_thread(danger.run, x="b"),
            one.run("c"),
            await one.arun(x="d"),
            two.run(x="e"),
            one.to_structured_tool().invoke({"x": "f"}),
            await one.to_structured_tool().ainvoke({"x": "g"}),
            structured.invoke({"x": "h"}),
            await structured.ainvoke({"x": "i"}),
        ]

    report = asyncio.run(Orchestrator(store=MemoryStore()).run_async(program, "go", tools=[add]))

    found = [3, 7, "BOOM", "BOOM", "c", "d", "e", "f", "g", "h", "i"]
    assert report.result == found, report.error
    assert report.tool_usage == {"add": 2, "danger": 2, "own": 4, "over": 1, "plain": 2}
    for name in report.tool_usage:
        denied = asyncio.run(Orchestrator([_Forbid(name)], MemoryStore()).run_async(program, "go", tools=[add]))
        assert (denied.violation or {}).get("rule") == "forbid", name


def test_cache_of_another_run(ran: list[str]) -> None:
    """A tool's cached result is served in the run that made it; another run's policies judge it anew."""
    agent = _agent("", _tools(ran), cache=True)

    def crew(url: str) -> Any:
        agent.llm = _llm(url)
        return Crew(agents=[agent], tasks=[Task(description="{task}", expected_output="x", agent=agent)])

    with OpenAIServer(replies=[_asks("add"), _asks("add"), _DONE, _asks("add"), _DONE]) as server:
        made = crew(server.url)
        first = Orchestrator(store=MemoryStore()).run(made, "go")
        second = Orchestrator([_Forbid("add")], MemoryStore()).run(made, "go")

    assert (first.status, first.tool_usage) == ("SUCCESS", {"add": 1}), first.error
    assert (second.violation or {}).get("rule") == "forbid", second.error
    assert ran == ["add"]


@pytest.mark.parametrize("function", ["tool", "plain"])
def test_functions_that_the_llm_calls(function: str, ran: list[str]) -> None:
    """An LLM that is handed functions calls them itself: each is a tool call, and is replayed."""

    def plain(a: int, b: int) -> str:
        ran.append("add")
        return str(a + b)

    functions = {"add": plain if function == "plain" else _tools(ran)[0].run}
    schema = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object"}}}

    def program(task: str) -> str:
        return str(_llm(url).call(task, tools=[schema], available_functions=functions))

    store = MemoryStore()
    with OpenAIServer(replies=[_asks("add"), _asks("add")]) as server:
        url = server.url
        live = Orchestrator(store=store).run(program, "go")
        denied = Orchestrator([_Forbid("add")], MemoryStore()).run(program, "go")
    played = Orchestrator().replay(program, "go", recording_of(store, live))

    assert (live.result, live.tool_usage, live.model_calls) == ("3", {"add": 1}, 1), live.error
    assert (denied.violation or {}).get("rule") == "forbid", denied.error
    assert (played.result, ran) == ("3", ["add"]), played.error


def test_stream_is_replayed(ran: list[str]) -> None:
    """Who reads a crew's stream reads the answer in a replay too."""
    store = MemoryStore()

    def program(task: str) -> list[str]:
        crew = _crew(_agent(url, _tools(ran)))
        crew.stream = True
        running = crew.kickoff(inputs={"task": task})
        return ["".join(chunk.content for chunk in running), running.result.raw]

    with OpenAIServer(replies=[_DONE]) as server:
        url = server.url
        live = Orchestrator(store=store).run(program, "go")
    played = Orchestrator().replay(program, "go", recording_of(store, live))

    assert live.result == played.result == ["done", "done"], (live.error, played.error)


def test_another_model() -> None:
    """A run that is forked asks the other model from there on."""
    orchestrator = Orchestrator(store=MemoryStore())
    with OpenAIServer(replies=["one", "two"]) as server:
        first = orchestrator.run(_crew(_agent(server.url, [])), "go")
        forked = orchestrator.fork(first.execution_id, _crew(_agent(server.url, [])), 1, model="other")

    assert forked.status == "SUCCESS", forked.error
    assert [request["model"] for request in server.requests] == ["gpt-4o", "other"]


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
    """A tool of an MCP server is one tool call."""
    pytest.importorskip("mcp.server.fastmcp")
    from crewai.mcp import MCPServerStdio

    script = tmp_path / "mcp_of_numbers.py"
    script.write_text(_MCP_SERVER)
    with OpenAIServer(respond=_asks_the_first_tool) as server:
        agent = _agent(server.url, [], mcps=[MCPServerStdio(command=sys.executable, args=[str(script)])])
        report = Orchestrator(store=MemoryStore()).run(_crew(agent), "go")

    assert report.final_output == "done", report.error
    assert (report.model_calls, report.tool_calls) == (2, 1)


def _asks_the_first_tool(request: Mapping[str, Any]) -> Any:
    if any(message["role"] == "tool" for message in request["messages"]):
        return _DONE
    name = request["tools"][0]["function"]["name"]
    return ToolCallReply(calls=(Asked(name=name, arguments={"a": 1, "b": 2}),))


@pytest.mark.parametrize("module", ["crewai", "crewai_models", "crewai_tools"])
def test_older_is_refused(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that was never tried is not governed by halves."""
    import importlib

    from oao_harness.adapters import requiring

    monkeypatch.setattr(requiring, "_installed", lambda _: "1.14.9")
    with pytest.raises(FrameworkError, match=r"crewai 1\.14\.9 .* 1\.15 or newer"):
        importlib.import_module(f"oao_harness.adapters.{module}").install()
