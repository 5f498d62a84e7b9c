"""Pydantic AI, in every way that it can be asked."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

pytest.importorskip("pydantic_ai.agent", reason="pydantic-ai is not installed: it has an environment of its own in CI")

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    BinaryContent,
    Choice,
    Choices,
    Embedder,
    ModelHTTPError,
    ModelRequest,
    ModelResponse,
    ModelRetry,
    NativeOutput,
    TextOutput,
    TextPart,
    ToolCallPart,
    ToolReturn,
    _output,
    direct,
)
from pydantic_ai.embeddings.test import TestEmbeddingModel
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.toolsets import CombinedToolset, FunctionToolset

from oao_harness import ExecutionReport, MemoryStore, Orchestrator
from oao_harness.adapters import pydantic_ai
from oao_harness.errors import FrameworkError
from oao_hookspecs import Allow, Deny, Limits, hookimpl
from pytest_oao.testing.adapter import AdapterCase, AdapterConformance, recording_of


@pytest.fixture(autouse=True)
def _loop() -> Iterator[None]:
    """Close the loop that `run_sync` leaves open."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    mine = asyncio.get_event_loop_policy().get_event_loop()
    yield
    with suppress(RuntimeError):
        asyncio.get_event_loop_policy().get_event_loop().close()
    mine.close()
    asyncio.set_event_loop(None)


class PydanticAI(AdapterCase):
    """Agents whose model speaks Chat Completions."""

    name = "pydantic-ai"

    def agent(self, url: str, tools: Sequence[Callable[..., Any]]) -> object:
        # Nobody closes the client, and the loop is over before it is collected: no connection may be left.
        client = AsyncOpenAI(base_url=url, api_key="k", default_headers={"Connection": "close"})
        return Agent(OpenAIChatModel("scripted", provider=OpenAIProvider(openai_client=client)), tools=list(tools))

    def streamed(self, agent: Any) -> Callable[[str], Any]:
        async def ask(task: str) -> str:
            async with agent.run_stream(task) as running:
                return "".join([piece async for piece in running.stream_text(delta=True)])

        return ask

    def text(self, output: object) -> str:
        return str(getattr(output, "output", output))


class TestPydanticAI(AdapterConformance):
    """What every adapter promises."""

    case = PydanticAI()


# What is particular to it


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def saying(*turns: Any) -> FunctionModel:
    """Return a model that says these, one after the other: a text, or a tool's name and arguments."""
    left = iter(turns)

    def part(turn: Any) -> Any:
        return TextPart(turn) if isinstance(turn, str) else ToolCallPart(turn[0], turn[1])

    def answer(_messages: Any, _info: AgentInfo) -> ModelResponse:
        turn = next(left)
        return ModelResponse(parts=[part(one) for one in (turn if isinstance(turn, list) else [turn])])

    async def stream(messages: Any, info: AgentInfo) -> AsyncIterator[Any]:
        for index, one in enumerate(answer(messages, info).parts):
            if isinstance(one, TextPart):
                for word in one.content.split(" "):
                    yield f"{word} "
            else:
                yield {index: DeltaToolCall(name=one.tool_name, json_args=json.dumps(one.args))}

    return FunctionModel(answer, stream_function=stream)


class Denying:
    """A policy that denies one tool."""

    def __init__(self, name: str) -> None:
        self._name = name

    @hookimpl
    def oao_decide_tool_call(self, call: Any) -> Any:
        return Deny(rule="denied", reason="no") if call.name == self._name else Allow()


def run(agent: Any, *policies: object) -> tuple[ExecutionReport, list[Any], MemoryStore]:
    """Run an agent, or an async function, and return the report, the calls as they were journaled, and the store."""
    store = MemoryStore()
    orchestrator = Orchestrator([*policies], store)
    is_async = inspect.iscoroutinefunction(agent)
    report = asyncio.run(orchestrator.run_async(agent, "go")) if is_async else orchestrator.run(agent, "go")
    return report, [record for record in store.read(report.execution_id) if record["type"] == "call"], store


def said(report: ExecutionReport) -> object:
    """Return the output of an agent."""
    assert report.status == "SUCCESS", report.error
    return getattr(report.result, "output", report.result)


def played(agent: Any, report: ExecutionReport, store: MemoryStore) -> ExecutionReport:
    """Replay a run."""
    return Orchestrator().replay(agent, "go", recording_of(store, report))


def names(calls: list[Any]) -> list[str]:
    return [f"{call['kind']} {call['name']}" for call in calls]


def test_test_model() -> None:
    """The models that Pydantic AI offers for tests are governed as any other."""
    report, calls, store = run(Agent(TestModel(), tools=[add]))
    assert report.status == "SUCCESS", report.error
    assert names(calls) == ["model test", "tool add", "model test"]
    assert said(played(Agent(TestModel(call_tools=[]), tools=[add]), report, store)) == said(report)


def failing() -> FunctionModel:
    def answer(_messages: Any, _info: AgentInfo) -> ModelResponse:
        raise ModelHTTPError(500, "broken")

    return FunctionModel(answer, model_name="broken")


def test_routers() -> None:
    """A wrapper is not counted; of a fallback's models each one that is asked is, under its own name."""
    report, calls, store = run(Agent(WrapperModel(FallbackModel(failing(), saying("done")))))
    assert report.status == "SUCCESS", report.error
    assert [call["name"] for call in calls] == ["broken", saying().model_name]
    again = played(Agent(WrapperModel(FallbackModel(failing(), saying("other")))), report, store)
    assert said(again) == "done"


def test_router_of_users() -> None:
    """What a model asks of another model to answer is a part of its answer."""

    class Router(FunctionModel):
        async def request(self, *args: Any, **kwargs: Any) -> ModelResponse:
            return await saying("inner").request(*args, **kwargs)

    report, calls, _ = run(Agent(Router(lambda _messages, _info: ModelResponse(parts=[]), model_name="router")))
    assert (said(report), names(calls)) == ("inner", ["model router"])


def test_direct() -> None:
    """A request without an agent is governed, whole and as a stream; and one form is replayed as the other."""
    asked = [ModelRequest.user_text_prompt("hi")]

    async def whole(_task: str) -> str:
        return str((await direct.model_request(saying("so be it"), asked)).text)

    async def stream(_task: str) -> str:
        async with direct.model_request_stream(saying("so be it"), asked) as response:
            events = [event async for event in response]
        assert events
        return str(response.get().text).strip()

    for first in (whole, stream):
        report, calls, store = run(first)
        assert (said(report), len(calls)) == ("so be it", 1)
        for second in (whole, stream):
            assert str(said(played(second, report, store))).strip() == "so be it"


def test_events() -> None:
    """A recorded stream is played with its events, as they came."""
    seen: list[list[str]] = []

    model = saying(("add", {"a": 1, "b": 2}), "it is three")

    async def ask(_task: str) -> str:
        kinds: list[str] = []
        async with Agent(model, tools=[add]).run_stream_events("go") as events:
            async for event in events:
                kinds.append(event.event_kind)
        seen.append(kinds)
        return kinds[-1]

    report, _, store = run(ask)
    assert said(report) == said(played(ask, report, store))
    assert seen[0] == seen[1]
    assert seen[0].count("part_delta") >= 2


def test_left_stream() -> None:
    """A stream that its reader leaves ends its call, and says so."""

    async def ask(_task: str) -> str:
        async with Agent(saying("one two three four")).run_stream("go") as running:
            async for _ in running.stream_text(debounce_by=None):
                break
        return "left"

    report, calls, store = run(ask)
    assert (said(report), len(calls)) == ("left", 1)
    (outcome,) = [record for record in store.read(report.execution_id) if record["type"] == "outcome"]
    assert outcome["res"]["partial"] is True, list(outcome.items())


def test_toolsets() -> None:
    """A toolset that hands on to another is one call, under the name that the model knows."""
    tools = CombinedToolset([FunctionToolset([add]).filtered(lambda _context, _tool: True).prefixed("math")])
    agent = Agent(saying(("math_add", {"a": 1, "b": 2}), "three"), toolsets=[tools])
    report, calls, _ = run(agent)
    assert (said(report), names(calls)[1], report.tool_calls) == ("three", "tool math_add", 1)


def test_toolset_of_users() -> None:
    """A toolset that a user wrote is governed, and what its tool asks of another toolset too."""
    inner = FunctionToolset([add])

    class Own(FunctionToolset[Any]):
        async def call_tool(self, name: str, tool_args: Any, ctx: Any, tool: Any) -> Any:
            found = await inner.get_tools(ctx)
            return await inner.call_tool("add", {"a": 1, "b": 2}, ctx, found["add"])

    def outer() -> int:
        """Do more."""
        return 0

    report, calls, _ = run(Agent(saying(("outer", {}), "three"), toolsets=[Own([outer])]), Denying("add"))
    assert (report.status, names(calls)[1:]) == ("FAILED", ["tool outer", "tool add"])


def test_nested() -> None:
    """An agent that is a tool of another is governed, and its denial ends both."""
    inner = Agent(saying(("add", {"a": 1, "b": 2}), "three"), tools=[add])
    outer = Agent(saying(("ask", {}), "done"))

    @outer.tool_plain
    async def ask() -> str:
        """Ask the other agent."""
        try:
            return str((await inner.run("go")).output)
        except Exception:
            return "swallowed"

    report, calls, _ = run(outer, Denying("add"))
    assert (report.status, (report.violation or {})["rule"]) == ("FAILED", "denied")
    assert [call["kind"] for call in calls] == ["model", "tool", "model", "tool"]


def test_parallel() -> None:
    """A denial while others run ends the run soon: the others are cancelled, and nothing waits for them."""
    began: list[str] = []
    agent = Agent(saying([("slow", {}), ("ask", {})], "done"))

    @agent.tool_plain
    async def slow() -> None:
        """Wait."""
        began.append("slow")
        await asyncio.sleep(60)

    @agent.tool_plain
    async def ask() -> str:
        """Ask the other agent."""
        return str((await Agent(saying(("add", {"a": 1, "b": 2}), "three"), tools=[add]).run("go")).output)

    report, _, _ = run(agent, Denying("add"))
    assert (report.status, began) == ("FAILED", ["slow"])


def test_retries() -> None:
    """What a tool raises to be asked once more is recorded as that, and raised again in a replay."""
    tries: list[int] = []

    def agent(model: Any) -> Any:
        made = Agent(model, retries=3)

        @made.tool_plain
        def moody() -> str:
            """Work sometimes."""
            tries.append(1)
            if len(tries) == 1:
                raise ModelRetry("once more")
            return "worked"

        return made

    report, _, store = run(agent(saying(("moody", {}), ("moody", {}), "done")))
    assert (report.status, report.tool_calls, len(tries)) == ("SUCCESS", 2, 2), report.error
    again = played(agent(saying()), report, store)
    assert (said(again), len(tries)) == ("done", 2)


def test_returns() -> None:
    """What a tool returns for the program and for the model comes back in a replay as it was."""

    def agent(model: Any) -> Any:
        made = Agent(model)

        @made.tool_plain
        def look() -> ToolReturn:
            """Look."""
            return ToolReturn(return_value="seen", content=["a picture", BinaryContent(b"x", media_type="image/png")])

        return made

    report, _, store = run(agent(saying(("look", {}), "done")))
    again = played(agent(saying()), report, store)
    assert said(again) == "done"


ran: list[str] = []


def hand_over(city: str) -> str:
    """Hand over."""
    ran.append(city)
    return f"to {city}"


@pytest.mark.parametrize("output", [hand_over, TextOutput(hand_over), NativeOutput(hand_over)])
def test_output_functions(output: Any) -> None:
    """An output function runs with arguments of the model's: it is a tool, and can be denied."""
    as_tool = isinstance(output, type(hand_over))
    turn = ("final_result", {"city": "Rome"}) if as_tool else '{"city": "Rome"}'
    ran.clear()
    report, calls, store = run(Agent(saying(turn), output_type=output))
    assert "Rome" in str(said(report))
    assert (names(calls)[1:], len(ran)) == (["tool hand_over"], 1)
    again = played(Agent(saying(), output_type=output), report, store)
    assert (said(again), len(ran)) == (said(report), 1)
    denied, _, _ = run(Agent(saying(turn), output_type=output), Denying("hand_over"))
    assert (denied.status, len(ran)) == ("FAILED", 1)


def test_output_function_streamed() -> None:
    """While an answer streams, an output function does not run; with the whole of it, it runs once."""

    async def ask(_task: str) -> object:
        agent = Agent(saying(("final_result", {"city": "Rome"})), output_type=hand_over)
        async with agent.run_stream("go") as running:
            return [piece async for piece in running.stream_output(debounce_by=None)]

    ran.clear()
    report, _, _ = run(ask)
    assert said(report) == ["to Rome"]
    assert (ran, report.tool_calls) == (["Rome"], 1)


def test_structured_output() -> None:
    """An answer that is only data is no tool call."""

    class City(BaseModel):
        name: str

    report, calls, _ = run(Agent(saying(("final_result", {"name": "Rome"})), output_type=City))
    assert (said(report), names(calls)) == (City(name="Rome"), [f"model {saying().model_name}"])


def test_choices() -> None:
    """An action that the model picks is a tool call."""

    def refund() -> str:
        ran.append("refund")
        return "refunded"

    ran.clear()
    agent = Agent(TestModel(custom_output_args={"response": "refund"}), output_type=Choices({"refund": Choice(refund)}))
    report, _, _ = run(agent, Denying("refund"))
    assert (report.status, ran) == ("FAILED", [])


def test_embeddings() -> None:
    """An embedding is a model call."""

    async def ask(_task: str) -> object:
        return (await Embedder(TestEmbeddingModel()).embed_query("hello")).embeddings[0]

    report, calls, store = run(ask)
    assert names(calls) == ["model test"]
    assert said(played(ask, report, store)) == said(report)


def test_batches() -> None:
    """A batch is answered beside the gate: said, or refused."""

    class Batching(TestModel):
        async def batch_create(self, requests: Any) -> Any:
            ran.append("batch")

    async def ask(_task: str) -> None:
        await Batching().batch_create([])

    class Strict:
        @hookimpl
        def oao_limits(self) -> Limits:
            return Limits(require_governed=True)

    ran.clear()
    assert "batch of requests" in run(ask)[0].ungoverned[0]
    assert run(ask, Strict())[0].status == "FAILED"
    assert ran == ["batch"]


def test_requests_are_stable() -> None:
    """What is journaled of a request says nothing of when, or in which process, it was made."""
    agent = Agent(saying(("add", {"a": 1, "b": 2}), "three"), tools=[add], instructions="Be brief.")
    _, calls, _ = run(agent)
    written = json.dumps([call["req"] for call in calls if call["kind"] == "model"])
    assert "Be brief." in written
    assert not [word for word in ("timestamp", "run_id", "conversation_id", "usage") if word in written]


def test_outside() -> None:
    """Outside of runs nothing is changed."""
    assert Agent(TestModel(), tools=[add]).run_sync("go").output == '{"add":0}'


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version without the leaves is refused."""
    monkeypatch.delattr(_output, "execute_output_function")
    with pytest.raises(FrameworkError, match="execute_output_function"):
        pydantic_ai.install()


def test_realtime() -> None:
    """What is said over a realtime connection is not governed, and that is said."""
    from pydantic_ai.realtime.model import RealtimeModel

    class Connected(RealtimeModel):
        model_name = system = "connected"
        profile: Any = None

        @asynccontextmanager
        async def connect(self, **_: Any) -> AsyncIterator[Any]:
            yield "connected"

    Connected.__abstractmethods__ = frozenset()

    async def ask(_task: str) -> str:
        async with Connected().connect() as connection:
            return str(connection)

    report, _, _ = run(ask)
    assert (said(report), "realtime" in report.ungoverned[0]) == ("connected", True)
