"""LlamaIndex, in every way that it can be asked."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="llama-index is not installed: it has an environment of its own in CI")

from llama_index.core import Response, get_response_synthesizer
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse, LLMMetadata, TextBlock, ToolCallBlock
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.tools import FunctionTool, QueryEngineTool, QueryPlanTool, ToolMetadata, ToolOutput
from llama_index.core.tools.types import AsyncBaseTool, BaseTool, adapt_to_async_tool
from llama_index.core.workflow import Context
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel, Field

from oao_harness import ExecutionReport, MemoryStore, Orchestrator
from oao_harness.adapters import llama_index, requiring
from oao_harness.errors import FrameworkError
from oao_hookspecs import Allow, Deny, Modify, hookimpl
from pytest_oao.testing.adapter import AdapterCase, AdapterConformance, recording_of


class LlamaIndex(AdapterCase):
    """Function agents whose model speaks Chat Completions."""

    name = "llama-index"

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        model = OpenAI("gpt-4o", api_base=url, api_key="k", max_retries=0)
        return FunctionAgent(tools=[FunctionTool.from_defaults(tool) for tool in tools], llm=model, streaming=False)

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        agent.streaming = True

        async def ask(task: str) -> str:
            running = agent.run(task)
            pieces = [event.delta async for event in running.stream_events() if isinstance(event, AgentStream)]
            return "".join(pieces) or str(await running)

        return ask

    def text(self, output: object) -> str:
        return str(output)


class TestLlamaIndex(AdapterConformance):
    """What every adapter promises."""

    case = LlamaIndex()


# What is particular to it


class Saying(CustomLLM):
    """A model that says these, one after the other, in words."""

    turns: list[str] = Field(default_factory=list)
    bodies: list[str] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="saying")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self.bodies.append("complete")
        return CompletionResponse(text=self.turns.pop(0))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        self.bodies.append("stream_complete")
        text = self.turns.pop(0)

        def pieces() -> Any:
            said = ""
            for word in text.split(" "):
                said += f"{word} "
                yield CompletionResponse(text=said, delta=f"{word} ")

        return pieces()


class Denying:
    """A policy that denies one tool."""

    def __init__(self, name: str) -> None:
        self._name = name

    @hookimpl
    def oao_decide_tool_call(self, call: Any) -> Any:
        return Deny(rule="denied", reason="no") if call.name == self._name else Allow()


def run(agent: Any, *policies: object) -> tuple[ExecutionReport, list[Any], MemoryStore]:
    """Run an agent, or a function, and return the report, the calls as they were journaled, and the store."""
    store = MemoryStore()
    orchestrator = Orchestrator([*policies], store)
    is_async = inspect.iscoroutinefunction(agent)
    report = asyncio.run(orchestrator.run_async(agent, "go")) if is_async else orchestrator.run(agent, "go")
    return report, [record for record in store.read(report.execution_id) if record["type"] == "call"], store


def played(agent: Any, report: ExecutionReport, store: MemoryStore) -> ExecutionReport:
    """Replay a run."""
    return Orchestrator().replay(agent, "go", recording_of(store, report))


def names(calls: list[Any]) -> list[str]:
    return [f"{call['kind']} {call['name']}" for call in calls]


_ASKED = [ChatMessage(role="user", content="hi")]


async def _all(stream: Any) -> str:
    return "".join([piece.delta or "" async for piece in stream])


def _whole(model: Any) -> str:
    return str(model.chat(_ASKED).message.content)


def _completed(model: Any) -> str:
    return str(model.complete("hi").text)


def _stream(model: Any) -> str:
    return "".join(piece.delta or "" for piece in model.stream_chat(_ASKED))


def _stream_completed(model: Any) -> str:
    pieces = list(model.stream_complete("hi"))
    assert [piece.text for piece in pieces][-1] == "".join(piece.delta or "" for piece in pieces)
    return pieces[-1].text


async def _awhole(model: Any) -> str:
    return str((await model.achat(_ASKED)).message.content)


async def _astream(model: Any) -> str:
    return await _all(await model.astream_chat(_ASKED))


async def _acompleted(model: Any) -> str:
    return str((await model.acomplete("hi")).text)


async def _astream_completed(model: Any) -> str:
    return await _all(await model.astream_complete("hi"))


@pytest.mark.parametrize(
    "ask",
    [_whole, _completed, _stream, _stream_completed, _awhole, _astream, _acompleted, _astream_completed],
)
def test_ways(ask: Callable[[Any], Any]) -> None:
    """However a model is asked, it is one call, whichever of its methods does the work; and is replayed without it."""

    def asking(model: Any) -> Any:
        if inspect.iscoroutinefunction(ask):

            async def agent(_task: str) -> str:
                return str(await ask(model))

            return agent
        return lambda _task: ask(model)

    model = Saying(turns=["one two three four"])
    report, calls, store = run(asking(model))
    assert (str(report.result).strip(), names(calls)) == ("one two three four", ["model saying"]), report.error
    written = json.dumps([record for record in store.read(report.execution_id) if record["type"] == "outcome"])
    assert written.count("two") <= 2, "a piece repeats what came before it"
    silent = Saying()
    again = played(asking(silent), report, store)
    assert (again.result, silent.bodies) == (report.result, []), again.error


def test_forms() -> None:
    """What was recorded as a stream is replayed whole, and the other way round."""
    for first, second in ((_stream, _whole), (_whole, _stream)):
        report, _, store = run(lambda _task, ask=first: ask(Saying(turns=["one two"])))
        again = played(lambda _task, ask=second: ask(Saying()), report, store)
        assert str(again.result).strip() == "one two", again.error


class City(BaseModel):
    """A city."""

    name: str


def test_structured() -> None:
    """An LLM that makes data of another one's answer is not counted."""
    model = Saying(turns=['{"name": "Rome"}']).as_structured_llm(City)
    report, calls, _ = run(lambda _task: model.chat(_ASKED).raw)
    assert (report.result, names(calls)) == (City(name="Rome"), ["model saying"]), report.error


def add(a: int, b: int) -> int:
    """Add two numbers."""
    ran.append("add")
    return a + b


ran: list[str] = []
_ACT = 'Thought: I need a tool.\nAction: add\nAction Input: {"a": 1, "b": 2}'
_ANSWER = "Thought: I can answer.\nAnswer: three"


def test_react() -> None:
    """An agent that asks for tools in its text is governed, and is replayed."""
    ran.clear()
    report, calls, store = run(ReActAgent(tools=[add], llm=Saying(turns=[_ACT, _ANSWER])))
    assert (report.status, names(calls)) == ("SUCCESS", ["model saying", "tool add", "model saying"]), report.error
    again = played(ReActAgent(tools=[add], llm=Saying()), report, store)
    assert (str(again.result), ran) == (str(report.result), ["add"]), again.error
    denied, _, _ = run(ReActAgent(tools=[add], llm=Saying(turns=[_ACT, _ANSWER])), Denying("add"))
    assert ((denied.violation or {})["rule"], ran) == ("denied", ["add"])


def test_handoff() -> None:
    """Agents that hand over to each other are governed, and handing over is a tool call."""

    def workflow(model: Any) -> AgentWorkflow:
        one = ReActAgent(name="one", description="The first.", llm=model, can_handoff_to=["two"])
        two = ReActAgent(name="two", description="The second.", llm=model, tools=[add])
        return AgentWorkflow(agents=[one, two], root_agent="one")

    over = 'Thought: no.\nAction: handoff\nAction Input: {"to_agent": "two", "reason": "can add"}'
    report, calls, store = run(workflow(Saying(turns=[over, _ACT, _ANSWER])))
    assert [call["name"] for call in calls if call["kind"] == "tool"] == ["handoff", "add"], report.error
    again = played(workflow(Saying()), report, store)
    assert (again.status, str(again.result)) == ("SUCCESS", str(report.result)), again.error


def test_denial_in_parallel() -> None:
    """A denial while another tool runs ends the run soon, also for who reads the events."""

    async def slow() -> None:
        """Wait."""
        await asyncio.sleep(60)

    async def ask() -> str:
        """Ask another agent."""
        return str(await ReActAgent(tools=[add], llm=Saying(turns=[_ACT, _ANSWER])).run("go"))

    calls = [ToolCallBlock(tool_name="slow", tool_kwargs={}), ToolCallBlock(tool_name="ask", tool_kwargs={})]
    model = MockFunctionCallingLLM(
        response_generator=lambda messages, **_: ChatMessage(
            role="assistant", blocks=calls if messages[-1].role.value == "user" else [TextBlock(text="done")]
        )
    )

    async def agent(_task: str) -> str:
        running = FunctionAgent(tools=[slow, ask], llm=model).run("go")
        async for _ in running.stream_events():
            pass
        return str(await running)

    report, made, _ = run(agent, Denying("add"))
    assert (report.status, (report.violation or {}).get("rule")) == ("FAILED", "denied"), report.error
    assert "tool slow" in names(made)


class Engine(CustomQueryEngine):
    """An engine that finds the same each time."""

    def custom_query(self, query_str: str) -> Response:
        ran.append(query_str)
        return Response(f"found {query_str}", metadata={"of": {"a": object()}})


def test_query_engines() -> None:
    """An engine that is a tool runs once, and comes back in a replay although its result is no data."""
    tool = QueryEngineTool.from_defaults(Engine(), name="find")
    for ask in (lambda _task: str(tool("x")), lambda _task: str(tool.call(input="x"))):
        ran.clear()
        report, calls, store = run(ask)
        assert (report.result, names(calls)) == ("found x", ["tool find"]), report.error
        assert calls[0]["req"] == {"input": "x"}
        assert (played(ask, report, store).result, ran) == ("found x", ["x"])


def test_query_plan() -> None:
    """A plan of queries is a tool, and so is each of its queries."""
    tool = QueryPlanTool.from_defaults(
        [QueryEngineTool.from_defaults(Engine(), name="find")], get_response_synthesizer(llm=Saying())
    )
    node = {"id": 1, "query_str": "x", "tool_name": "find", "dependencies": []}
    report, calls, _ = run(lambda _task: str(tool(nodes=[node])))
    assert names(calls) == ["tool query_plan_tool", "tool find"], report.error


def test_tools_of_users() -> None:
    """A tool class that a user wrote is governed, whichever of its public methods he overrode; once."""

    class Old(BaseTool):
        @property
        def metadata(self) -> ToolMetadata:
            return ToolMetadata("Old.", name="old")

        def __call__(self, input: Any) -> ToolOutput:
            ran.append(f"old {input}")
            return ToolOutput(tool_name="old", content="so", raw_input={}, raw_output="so")

    class New(Old, AsyncBaseTool):
        def call(self, input: Any) -> ToolOutput:
            return Old.__call__(self, input)

        async def acall(self, input: Any) -> ToolOutput:
            return self.call(input)

    async def adapted(_task: str) -> str:
        return str(await adapt_to_async_tool(Old()).acall("x"))

    async def new(_task: str) -> str:
        return str(await New().acall("x"))

    for agent in (lambda _task: str(Old()("x")), adapted, new):
        ran.clear()
        report, calls, _ = run(agent)
        assert (report.result, names(calls), ran) == ("so", ["tool old"], ["old x"]), report.error
        assert run(agent, Denying("old"))[0].status == "FAILED"
        assert ran == ["old x"]


def test_context() -> None:
    """What the framework hands to a tool is no argument of the model's, and stays what it is."""

    async def note(context: Context, text: str) -> str:
        """Note a text."""
        await context.store.set("noted", text)
        return "noted"

    note.__annotations__ = {"context": Context, "text": str, "return": str}

    class Rewriting:
        @hookimpl
        def oao_decide_tool_call(self, call: Any) -> Any:
            return (
                Allow() if call.arguments["text"] == "else" else Modify(call=replace(call, arguments={"text": "else"}))
            )

    acting = 'Thought: note.\nAction: note\nAction Input: {"text": "this"}'
    report, calls, _ = run(ReActAgent(tools=[note], llm=Saying(turns=[acting, _ANSWER])), Rewriting())
    assert report.status == "SUCCESS", report.error
    assert calls[1]["req"] in ({"text": "else"}, {"text": "this"})


def test_engines_are_driven() -> None:
    """A query engine and a chat engine are agents of oao's."""
    report, _, _ = run(Engine())
    assert str(report.result) == "found go"
    chat = SimpleChatEngine.from_defaults(llm=Saying(turns=["hello"]))
    report, calls, _ = run(chat)
    assert (str(report.result), names(calls)) == ("hello", ["model saying"]), report.error


def test_outside() -> None:
    """Outside of runs nothing is changed."""
    assert FunctionTool.from_defaults(add)(a=1, b=2).raw_output == 3
    assert _stream(Saying(turns=["a b"])) == "a b "


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older version is refused."""
    monkeypatch.setattr(requiring, "version", lambda _name: "0.13.9")
    with pytest.raises(FrameworkError, match=r"0\.14\.25"):
        llama_index.install()
