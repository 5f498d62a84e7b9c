"""Graphs: agents of LangChain, hand-written graphs, tool nodes; their steps, halts, commands and caches."""

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, StructuredTool, tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime, tools_condition
from langgraph.types import CachePolicy, Command, Interrupt, Send, interrupt
from pydantic import BaseModel

from oao_harness import ExecutionReport, MemoryStore, Orchestrator, StrictPolicy, ToolPolicy
from oao_harness.journal.codec import decode, encode
from tests.adapters.scripted import ReplaySession, Scripted, ScriptedStream, asks, says

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    ran.clear()


@tool
def add(a: int, b: int) -> int:
    """Add."""
    ran.append("add")
    return a + b


@tool
def danger(x: str) -> str:
    """Do harm."""
    ran.append("danger")
    return x


@tool
async def slow(x: str) -> str:
    """Has no sync way in."""
    ran.append("slow")
    return x


SUM = [asks(("add", {"a": 1, "b": 2})), says("it is three")]
BOTH = [asks(("add", {"a": 1, "b": 2}), ("danger", {"x": "y"}), ("add", {"a": 3, "b": 4})), says("done")]


def agent_graph(script: Any, tools: Any, *, node: Any = None, kind: type[Scripted] = ScriptedStream, **kw: Any) -> Any:
    return create_agent(kind(script=script), tools, **kw)


def hand_written(script: Any, tools: Any, *, node: Any = None, kind: type[Scripted] = ScriptedStream, **kw: Any) -> Any:
    model = kind(script=script).bind_tools(tools)
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", node or ToolNode(tools, handle_tool_errors=True))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(**kw)


GRAPHS = [agent_graph, hand_written]


def run(agent: Any, policy: Any = None, store: MemoryStore | None = None, task: Any = "1+2?") -> ExecutionReport:
    return Orchestrator(policy, store=store).run(agent, task)


def arun(agent: Any, policy: Any = None, store: MemoryStore | None = None, task: Any = "1+2?") -> ExecutionReport:
    return asyncio.run(Orchestrator(policy, store=store).run_async(agent, task))


def streamed(graph: Any) -> Callable[[Any], Any]:
    def agent(task: str) -> str:
        parts = list(graph.stream({"messages": [("user", task)]}, stream_mode=["messages", "values"]))
        return str(parts[-1][1]["messages"][-1].text)

    return agent


def evented(graph: Any) -> Callable[[Any], Any]:
    async def agent(task: str) -> str:
        events = [e async for e in graph.astream_events({"messages": [("user", task)]}, version="v2")]
        return str(events[-1]["data"]["output"]["messages"][-1].text)

    return agent


WAYS: dict[str, tuple[Callable[[Any], Any], Callable[..., ExecutionReport]]] = {
    "invoke": (lambda graph: graph, run),
    "ainvoke": (lambda graph: graph, arun),
    "stream": (streamed, run),
    "astream_events": (evented, run),
}


@pytest.mark.parametrize("make", GRAPHS)
@pytest.mark.parametrize("way", WAYS)
def test_counts_are_exact_whatever_way_a_graph_runs(way: str, make: Any) -> None:
    """Two model calls, one tool call, three steps, thirty tokens: in every way to run the graph."""
    wrap, start = WAYS[way]
    report = start(wrap(make(SUM, [add])))
    assert report.error is None
    assert report.final_output == "it is three"
    counts = (report.model_calls, report.tool_calls, report.total_steps, report.total_tokens)
    assert counts == (2, 1, 3, 30)
    assert ran == ["add"]


@pytest.mark.parametrize("make", GRAPHS)
@pytest.mark.parametrize("recorded", WAYS)
@pytest.mark.parametrize("replayed", WAYS)
def test_a_graph_is_replayed_in_any_way_without_executing_anything(recorded: str, replayed: str, make: Any) -> None:
    """Record with one way, replay with another: the same answer, no model, no tool."""
    store = MemoryStore()
    wrap, start = WAYS[recorded]
    first = start(wrap(make(SUM, [add])), store=store)
    ran.clear()
    wrap, start = WAYS[replayed]
    with ReplaySession(list(store.read(first.execution_id))):
        second = start(wrap(make([says("never")], [add])))
    assert (second.error, second.final_output) == (None, "it is three")
    assert (second.model_calls, second.tool_calls, second.total_tokens) == (2, 1, 30)
    assert ran == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", GRAPHS)
def test_of_a_batch_with_a_denied_tool_none_starts(way: str, make: Any) -> None:
    """The siblings of a denied call do not run, in 30 of 30 runs, also under `handle_tool_errors=True`."""
    wrap, start = WAYS[way]
    graph = wrap(make(BOTH, [add, danger]))
    for _ in range(30):
        report = start(graph, ToolPolicy(deny=["danger"]))
        assert report.status == "FAILED"
        assert report.violation is not None
        assert report.violation["rule"] == "tools.deny"
    assert ran == []


@pytest.mark.parametrize("start", [run, arun])
def test_a_lone_denied_tool_is_not_turned_into_a_message(start: Any) -> None:
    """`ToolNode(handle_tool_errors=True)` does not swallow a denial, and the model is not asked again."""
    model_calls: list[int] = []

    def script(messages: Any) -> AIMessage:
        model_calls.append(1)
        return asks(("danger", {"x": "y"}))

    report = start(hand_written(script, [danger]), ToolPolicy(deny=["danger"]))
    assert (report.status, ran, len(model_calls)) == ("FAILED", [], 1)


@pytest.mark.parametrize("start", [run, arun])
@pytest.mark.parametrize("kind", [Exception, BaseException])
def test_a_node_that_swallows_a_denial_does_not_save_the_run(kind: type[BaseException], start: Any) -> None:
    """Whatever a node catches, the run is FAILED and the next call is refused."""

    def swallowing(state: Any) -> Any:
        try:
            danger.invoke({"x": "y"})
        except kind:
            return {"messages": [AIMessage("all fine")]}
        return {"messages": []}

    builder = StateGraph(MessagesState)
    builder.add_node("swallow", swallowing)
    builder.add_node("after", lambda state: {"messages": [AIMessage(str(add.invoke({"a": 1, "b": 1})))]})
    builder.add_edge(START, "swallow")
    builder.add_edge("swallow", "after")
    report = start(builder.compile(), ToolPolicy(deny=["danger"]))
    assert (report.status, report.final_output, ran) == ("FAILED", None, [])


class Count(TypedDict):
    n: Annotated[int, operator.add]


@pytest.mark.parametrize("start", [run, arun])
def test_max_steps_stops_a_graph_that_never_ends(start: Any) -> None:
    """A loop without any model or tool call is stopped at the limit on steps."""
    builder = StateGraph(Count)
    builder.add_node("spin", lambda state: ran.append(1) or {"n": 1})
    builder.add_edge(START, "spin")
    builder.add_conditional_edges("spin", lambda state: "spin")
    graph = builder.compile().with_config(recursion_limit=10_000)
    report = start(graph, StrictPolicy(max_steps=7), task={"n": 0})
    assert report.status == "FAILED"
    assert report.violation is not None
    assert report.violation["rule"] == "max_steps"
    assert len(ran) == 7


def test_steps_are_journaled_with_their_nodes_and_calls_with_their_place() -> None:
    """The journal names the nodes of each step, and says at which node a call was made, without random ids."""
    store = MemoryStore()
    inner = hand_written(SUM, [add])
    builder = StateGraph(MessagesState)
    builder.add_node("outer", inner)
    builder.add_edge(START, "outer")
    report = run(builder.compile(), store=store)
    records = list(store.read(report.execution_id))
    assert [r["name"] for r in records if r["type"] == "step"] == ["outer", "model", "tools", "model"]
    assert [r["scope"] for r in records if r["type"] == "call"] == ["outer|model", "outer|tools", "outer|model"]
    assert next(r for r in records if r.get("kind") == "tool")["call_id"] == "c0_add"


@pytest.mark.parametrize("start", [run, arun])
def test_a_command_that_a_tool_returns_is_replayed(start: Any) -> None:
    """`Command` and the messages in it come back from the journal and steer the graph as before."""

    @tool
    def remember(call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Return a command."""
        ran.append("remember")
        return Command(update={"messages": [ToolMessage("noted", tool_call_id=call_id)]})

    store = MemoryStore()
    graph = create_agent(Scripted(script=[asks(("remember", {})), says("ok")]), [remember])
    first = start(graph, store=store)
    with ReplaySession(list(store.read(first.execution_id))):
        second = start(graph)
    assert (first.error, second.error, second.final_output, ran) == (None, None, "ok", ["remember"])


def test_commands_sends_and_interrupts_survive_the_journal() -> None:
    """What steers a graph is the same after a round trip."""
    message = ToolMessage("x", tool_call_id="c")
    for value in (
        Command(graph=Command.PARENT, update={"messages": [message]}, goto=["a", Send("b", {"x": (1, 2)})]),
        Command(resume={"i": 1}),
        Send("node", {"messages": [message]}),
        Interrupt(value={"question": "sure?"}, id="abc"),
    ):
        assert decode(encode(value)) == value


def test_injected_state_and_runtime_reach_the_body_and_no_journal() -> None:
    """What LangGraph injects is no part of the request."""

    @tool
    def injected(x: int, state: Annotated[dict[str, Any], InjectedState], runtime: ToolRuntime) -> str:
        """Use what is injected."""
        ran.append((len(state["messages"]), runtime.tool_call_id))
        return "ok"

    store = MemoryStore()
    report = run(create_agent(Scripted(script=[asks(("injected", {"x": 1})), says("ok")]), [injected]), store=store)
    assert report.error is None
    assert ran == [(2, "c0_injected")]
    call = next(record for record in store.read(report.execution_id) if record.get("kind") == "tool")
    assert call["req"] == {"x": 1}


def test_an_interrupt_passes_through_and_resumes() -> None:
    """`interrupt()` inside of a tool pauses the graph as ever; the journal says so; the resumed call is a new one."""

    @tool
    def ask(question: str) -> str:
        """Ask a person."""
        ran.append("asked")
        return str(interrupt(question))

    store = MemoryStore()
    script = [asks(("ask", {"question": "sure?"})), says("then yes")]
    graph = hand_written(script, [ask], checkpointer=InMemorySaver())
    orchestrator = Orchestrator(store=store)
    threaded = graph.with_config(configurable={"thread_id": "t"})
    first = orchestrator.run(threaded, "go")
    assert (first.status, first.final_output) == ("SUCCESS", {"__interrupt__": ["sure?"]})
    outcome = [record for record in store.read(first.execution_id) if record["type"] == "outcome"][-1]
    assert "GraphInterrupt" in str(outcome["error"])
    second = orchestrator.run(threaded, Command(resume="yes"))
    assert (second.error, second.final_output, ran) == (None, "then yes", ["asked", "asked"])
    with ReplaySession(list(store.read(first.execution_id))):
        again = Orchestrator().run(hand_written(script, [ask], checkpointer=InMemorySaver()), "go")
    assert (again.final_output, len(ran)) == ({"__interrupt__": ["sure?"]}, 2)


@pytest.mark.parametrize("start", [run, arun])
def test_a_checkpointer_without_a_thread_gets_the_runs_own(start: Any) -> None:
    """A graph with a checkpointer can be run as it is; a thread of its own is kept."""
    saver = InMemorySaver()
    report = start(hand_written(SUM, [add], checkpointer=saver))
    assert (report.error, report.final_output) == (None, "it is three")
    assert saver.get_tuple({"configurable": {"thread_id": report.execution_id}}) is not None
    report = start(hand_written(SUM, [add], checkpointer=saver).with_config(configurable={"thread_id": "mine"}))
    assert report.error is None
    assert saver.get_tuple({"configurable": {"thread_id": "mine"}}) is not None


@pytest.mark.parametrize("start", [run, arun])
def test_a_node_cache_does_not_hide_calls(start: Any) -> None:
    """Inside of a run a `CachePolicy` is off: the node runs, and its calls are counted."""
    builder = StateGraph(Count)
    builder.add_node("n", lambda state: {"n": add.invoke({"a": 1, "b": 1})}, cache_policy=CachePolicy())
    builder.add_edge(START, "n")
    graph = builder.compile(cache=InMemoryCache())
    graph.invoke({"n": 0})
    graph.invoke({"n": 0})
    assert len(ran) == 1, "outside of runs the cache works"
    report = start(graph, task={"n": 0})
    assert (report.error, report.tool_calls, len(ran)) == (None, 1, 2)


def test_an_agent_with_async_tools_only_runs_from_sync_code() -> None:
    """Tools such as those of MCP servers have no sync way in; the run drives the graph in a loop then."""
    report = run(create_agent(Scripted(script=[asks(("slow", {"x": "y"})), says("ok")]), [slow]))
    assert (report.error, report.final_output, ran) == (None, "ok", ["slow"])


def test_an_async_node_runs_from_sync_code() -> None:
    """The same for a node that is a coroutine function."""

    async def node(state: Any) -> Any:
        return {"n": await asyncio.sleep(0, 4)}

    builder = StateGraph(Count)
    builder.add_node("n", node)
    builder.add_edge(START, "n")
    assert run(builder.compile(), task={"n": 0}).final_output == {"n": 4}


def test_a_structured_response_is_the_output() -> None:
    """With `response_format` the output is the structured answer, recorded and replayed."""

    class Answer(BaseModel):
        value: int

    store = MemoryStore()
    graph = create_agent(Scripted(script=[asks(("Answer", {"value": 3}))]), [add], response_format=Answer)
    first = run(graph, store=store)
    assert (first.error, first.final_output) == (None, {"value": 3})
    assert first.result["structured_response"] == Answer(value=3)  # type: ignore[index]
    with ReplaySession(list(store.read(first.execution_id))):
        assert run(graph).final_output == {"value": 3}


def test_a_dict_task_passes_unchanged_and_a_state_without_messages_is_the_output() -> None:
    """A task that is already the graph's input is left alone."""
    builder = StateGraph(Count)
    builder.add_node("n", lambda state: {"n": 1})
    builder.add_edge(START, "n")
    builder.add_edge("n", END)
    assert run(builder.compile(), task={"n": 5}).final_output == {"n": 6}


async def test_twenty_graphs_at_once_are_not_mixed() -> None:
    """Concurrent graphs, sync ones in threads and async ones in a loop, keep their counts to themselves."""
    orchestrator = Orchestrator()
    graph = agent_graph(SUM, [add])
    reports = await asyncio.gather(
        *(orchestrator.run_async(graph, "1+2?") for _ in range(10)),
        *(asyncio.to_thread(orchestrator.run, graph, "1+2?") for _ in range(10)),
    )
    assert {(r.error, r.model_calls, r.tool_calls, r.total_steps, r.total_tokens) for r in reports} == {
        (None, 2, 1, 3, 30)
    }


@pytest.mark.parametrize("start", [run, arun])
def test_a_parallel_error_handler_does_not_save_a_denied_run(start: Any) -> None:
    """Parallel branches that are sent to tools: a denial in one of them fails the run."""
    builder = StateGraph(Count)
    builder.add_node("fan", lambda state: {"n": 0})
    builder.add_node("work", lambda state: {"n": len(danger.invoke({"x": state["x"]}))})
    builder.add_edge(START, "fan")
    builder.add_conditional_edges("fan", lambda state: [Send("work", {"x": str(i)}) for i in range(4)])
    report = start(builder.compile(), ToolPolicy(deny=["danger"]), task={"n": 0})
    assert (report.status, ran) == ("FAILED", [])


def test_an_agent_wrapped_in_a_binding_is_still_a_graph() -> None:
    """`with_retry` around a graph: a text task becomes a message all the same."""
    report = run(hand_written(SUM, [add]).with_retry())
    assert (report.error, report.final_output) == (None, "it is three")


def test_tools_of_unknown_origin_in_a_tool_node_are_governed() -> None:
    """A tool that was made before the first run, from a plain function, is governed as well."""
    made = StructuredTool.from_function(lambda x: ran.append(x) or x, name="made", description="x")
    report = run(hand_written([asks(("made", {"x": "1"})), says("ok")], [made]), ToolPolicy(deny=["made"]))
    assert (report.status, ran) == ("FAILED", [])
