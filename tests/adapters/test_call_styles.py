"""Recorded in one call style and replayed in another: nothing runs, nothing is sent, results and counts are equal.

Real clients over real HTTP record; the server is down when they replay. Each subject is recorded once per style.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import before_model
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain.chat_models import init_chat_model
from langchain_core.messages import ToolMessage
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import InjectedToolCallId, ToolException, tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient
from pydantic import BaseModel

from oao_harness import Orchestrator
from pytest_oao.testing import ErrorReply, OpenAIServer, Reply, TextReply, ToolCall, ToolCallReply
from tests.adapters.call_styles import (
    GRAPH_STYLES,
    MODEL_STYLES,
    RUNNABLE_STYLES,
    Recorded,
    Style,
    agent_of,
    live,
    seen_of,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning"),
    # LangChain's own, while it traces a model that answers with a parsed object.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]

ran: list[str] = []


@tool
def plus(a: int, b: int) -> int:
    """Add two numbers."""
    ran.append("plus")
    return a + b


@tool
async def weather(city: str) -> str:
    """Look out of the window."""
    ran.append("weather")
    return f"sunny in {city}"


@tool
def sky(city: str) -> str:
    """Look out of the window."""
    ran.append("sky")
    return f"sunny in {city}"


@tool(response_format="content_and_artifact")
def chart(points: list[int]) -> tuple[str, dict[str, Any]]:
    """Draw a chart."""
    ran.append("chart")
    return "a chart", {"points": tuple(points), "raw": b"\x00\x01"}


@tool
def remember(fact: str, call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
    """Change the state."""
    ran.append("remember")
    return Command(update={"messages": [ToolMessage(f"noted {fact}", tool_call_id=call_id, name="remember")]})


@tool
def shown(x: str, call_id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
    """Answer with a message."""
    ran.append("shown")
    return ToolMessage([{"type": "text", "text": x}], tool_call_id=call_id, name="shown", artifact=(1, 2))


@tool
def broken(x: str) -> str:
    """Fail in a way that the model is told."""
    ran.append("broken")
    raise ToolException(f"cannot {x}")


broken.handle_tool_error = True


@tool
def failing(x: str) -> str:
    """Fail."""
    ran.append("failing")
    raise ValueError(f"no {x}")


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


JOKE = {"setup": "why?", "punchline": "so."}
BOTH = ToolCallReply(
    calls=(ToolCall(name="plus", arguments={"a": 1, "b": 2}), ToolCall(name="sky", arguments={"city": "Rome"})),
    text="let me look",
)


def says(text: str) -> Callable[[dict[str, Any]], Reply]:
    return lambda body: TextReply(text=text)


def calls(*wanted: tuple[str, dict[str, Any]]) -> Callable[[dict[str, Any]], Reply]:
    """First ask for the tools, then answer in words."""
    asked = tuple(ToolCall(name=name, arguments=arguments) for name, arguments in wanted)

    def respond(body: dict[str, Any]) -> Reply:
        done = any(item.get("role") == "tool" or "output" in item for item in body.get("messages") or body["input"])
        return TextReply(text="it is three and sunny") if done else ToolCallReply(calls=asked, text="let me look")

    return respond


def joking(body: dict[str, Any]) -> Reply:
    """A joke in the way that the request asks for: by a tool or as JSON."""
    tools = body.get("tools") or []
    if any(offered["function"]["name"] == "Joke" for offered in tools):
        return ToolCallReply(calls=(ToolCall(name="Joke", arguments=JOKE),))
    return TextReply(text=json.dumps(JOKE))


def flaky(body: dict[str, Any]) -> Reply:
    """The model `bad` always fails."""
    return ErrorReply(status=500, message="busy") if body["model"] == "bad" else TextReply(text="at last")


# No connection outlives its request, because each recording has an event loop of its own; one TLS context for all.
CLIENT: dict[str, Any] = {
    "api_key": "k",
    "stream_usage": True,
    "max_retries": 0,
    "default_headers": {"connection": "close"},
    "http_client": DefaultHttpxClient(verify=False),
    "http_async_client": DefaultAsyncHttpxClient(verify=False),
}


def chat(url: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"model": "gpt-x", **CLIENT, **options}, base_url=url)


@before_model
def telling(state: Any, runtime: Any) -> None:
    """Write to the custom stream from a node."""
    runtime.stream_writer({"messages so far": len(state["messages"])})


def agent(url: str, tools: list[Any], **options: Any) -> Any:
    return create_agent(chat(url), tools, checkpointer=InMemorySaver(), **options)


def nested(url: str) -> Any:
    """Return a graph in a graph in a graph, whose innermost node is an agent."""
    inner: Any = create_agent(chat(url), [plus, sky])
    for name in ("middle", "outer"):
        builder = StateGraph(MessagesState)
        builder.add_node(name, inner)
        builder.add_edge(START, name)
        inner = builder.compile(checkpointer=InMemorySaver() if name == "outer" else None)
    return inner


def functional(url: str) -> Any:
    """Return a workflow of the functional API, whose tasks run side by side."""
    model = chat(url).bind_tools([plus, sky])

    @task
    def one_tool(call: dict[str, Any]) -> ToolMessage:
        return {"plus": plus, "sky": sky}[call["name"]].invoke(call)  # type: ignore[no-any-return]

    @entrypoint(checkpointer=InMemorySaver())
    def work(given: dict[str, Any]) -> Any:
        first = model.invoke(given["messages"])
        results = [future.result() for future in [one_tool(call) for call in first.tool_calls]]
        return {"messages": [model.invoke([*given["messages"], first, *results])]}

    return work


def hand_made(url: str) -> Any:
    """Return a graph with a `ToolNode` that turns every error of a tool into a message."""
    model = chat(url).bind_tools([failing])
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode([failing], handle_tool_errors=True))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", lambda state: "tools" if state["messages"][-1].tool_calls else "__end__")
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=InMemorySaver())


def unhandled(url: str) -> Any:
    """Return an agent whose tool fails; what came of it is said by the error."""
    graph = create_agent(chat(url), [failing])

    def attempt(given: Any) -> str:
        try:
            graph.invoke(given)
        except ValueError as error:
            return f"{type(error).__name__}: {error} {error.args}"
        return "no error"

    return RunnableLambda(attempt)


def prompted(url: str) -> Any:
    return ChatPromptTemplate.from_messages([("system", "be short"), ("human", "{topic}")]) | chat(url)


@dataclass(frozen=True)
class Subject:
    """What is called."""

    make: Callable[[str], Any]
    """Makes it, from the URL of the server."""
    given: Any
    respond: Callable[[dict[str, Any]], Reply]
    styles: dict[str, Style]
    calls: tuple[int, int]
    """Model calls and tool calls of one run."""
    recorded: tuple[str, ...] | None = None
    """The styles that are recorded; all of them by default."""
    ordered: bool = True
    """False where branches run side by side, so that chance decides whose events are seen first."""


HELLO = "say hello"
TOPIC = {"topic": HELLO}
ASKED = {"messages": [("user", "1+2, and Rome?")]}
FEW = ("invoke", "stream", "abatch", "astream_events_v2")
# `RunnableRetry` has no `stream`: LangChain does not retry what is streamed, so the calls themselves are others.
UNSTREAMED = {name: style for name, style in RUNNABLE_STYLES.items() if "invoke" in name or "batch" in name}
AT_ONCE: Any = {"initial": 0, "max": 0}
FEW_GRAPH = ("invoke", "astream_messages")
# A recording knows two kinds of answers, whole ones and streams; what made them is tried with the agent.
MOST_GRAPH = (*FEW_GRAPH, "stream_messages", "astream_events_v2", "stream_events_v3")
TWO = calls(("plus", {"a": 1, "b": 2}), ("sky", {"city": "Rome"}))
ASYNC_STYLES = {name: style for name, style in GRAPH_STYLES.items() if name.startswith("a") and name != "astream_log"}


def structured(method: str, *, raw: bool = False, schema: Any = Joke) -> Subject:
    def make(url: str) -> Any:
        return chat(url).with_structured_output(schema, method=method, include_raw=raw)  # type: ignore[arg-type]

    return Subject(make, HELLO, joking, RUNNABLE_STYLES, (1, 0), FEW, ordered=not raw)


def answered(strategy: Any) -> Subject:
    return Subject(
        lambda url: agent(url, [sky], response_format=strategy), ASKED, joking, GRAPH_STYLES, (1, 0), FEW_GRAPH
    )


SUBJECTS: dict[str, Subject] = {
    # Models
    "model": Subject(chat, HELLO, says("good day to you"), MODEL_STYLES, (1, 0)),
    "responses": Subject(
        lambda url: chat(url, use_responses_api=True), HELLO, says("good day to you"), MODEL_STYLES, (1, 0)
    ),
    "streaming": Subject(
        lambda url: chat(url, streaming=True), HELLO, says("good day to you"), MODEL_STYLES, (1, 0), FEW
    ),
    "bound_tools": Subject(
        lambda url: chat(url).bind_tools([plus, sky]), HELLO, lambda body: BOTH, RUNNABLE_STYLES, (1, 0)
    ),
    "responses_tools": Subject(
        lambda url: chat(url, use_responses_api=True).bind_tools([plus, sky]),
        HELLO, lambda body: BOTH, RUNNABLE_STYLES, (1, 0), FEW,
    ),
    "configurable": Subject(
        lambda url: init_chat_model(
            model_provider="openai", base_url=url, **CLIENT,
            configurable_fields=("model", "temperature"),
        ).with_config(configurable={"model": "gpt-y", "temperature": 0.5}),
        HELLO, says("good day to you"), RUNNABLE_STYLES, (1, 0), FEW,
    ),
    "configurable_field": Subject(
        lambda url: chat(url)
        .configurable_fields(temperature=ConfigurableField(id="t"))
        .with_config(configurable={"t": 1}),
        HELLO, says("good day to you"), RUNNABLE_STYLES, (1, 0), FEW,
    ),
    # Chains
    "prompt": Subject(prompted, TOPIC, says("good day to you"), RUNNABLE_STYLES, (1, 0), FEW),
    "chain": Subject(
        lambda url: prompted(url) | StrOutputParser(), TOPIC, says("good day to you"), RUNNABLE_STYLES, (1, 0), FEW
    ),
    "json_chain": Subject(lambda url: prompted(url) | JsonOutputParser(), TOPIC, joking, RUNNABLE_STYLES, (1, 0), FEW),
    "parallel": Subject(
        lambda url: RunnableParallel(
            one=prompted(url) | StrOutputParser(),
            two=ChatPromptTemplate.from_messages([("human", "twice {topic}")]) | chat(url) | StrOutputParser(),
            same=RunnablePassthrough() | itemgetter("topic"),
        ),
        TOPIC, says("good day to you"), RUNNABLE_STYLES, (2, 0), FEW, ordered=False,
    ),
    "fallbacks": Subject(
        lambda url: chat(url, model="bad").with_fallbacks([chat(url)]), HELLO, flaky, RUNNABLE_STYLES, (2, 0), FEW
    ),
    "retry": Subject(
        lambda url: chat(url, model="bad")
        .with_retry(stop_after_attempt=3, wait_exponential_jitter=False, exponential_jitter_params=AT_ONCE)
        .with_fallbacks([chat(url)]),
        HELLO, flaky, UNSTREAMED, (4, 0), ("invoke", "abatch"),
    ),
    # Structured output
    "json_schema": structured("json_schema"),
    "json_schema_raw": structured("json_schema", raw=True),
    "function_calling": structured("function_calling"),
    "function_calling_raw": structured("function_calling", raw=True),
    "json_mode": structured("json_mode"),
    "json_mode_raw": structured("json_mode", raw=True),
    "dict_schema": structured("json_schema", schema={"title": "Joke", **Joke.model_json_schema()}),
    # Agents and graphs
    "agent": Subject(
        lambda url: agent(url, [plus, sky], middleware=[telling]), ASKED, TWO, GRAPH_STYLES, (2, 2), ordered=False
    ),
    "async_tools": Subject(
        lambda url: agent(url, [plus, weather]), ASKED,
        calls(("plus", {"a": 1, "b": 2}), ("weather", {"city": "Rome"})),
        ASYNC_STYLES, (2, 2), ("ainvoke", "astream_messages"), ordered=False,
    ),
    "subgraphs": Subject(nested, ASKED, TWO, GRAPH_STYLES, (2, 2), FEW_GRAPH, ordered=False),
    "functional": Subject(functional, ASKED, TWO, GRAPH_STYLES, (2, 2), FEW_GRAPH, ordered=False),
    "artifact": Subject(
        lambda url: agent(url, [chart]), ASKED, calls(("chart", {"points": [1, 2]})), GRAPH_STYLES, (2, 1), FEW_GRAPH
    ),
    "command": Subject(
        lambda url: agent(url, [remember]), ASKED, calls(("remember", {"fact": "x"})), GRAPH_STYLES, (2, 1), FEW_GRAPH
    ),
    "tool_message": Subject(
        lambda url: agent(url, [shown]), ASKED, calls(("shown", {"x": "y"})), GRAPH_STYLES, (2, 1), FEW_GRAPH
    ),
    "handled_error": Subject(
        lambda url: agent(url, [broken]), ASKED, calls(("broken", {"x": "y"})), GRAPH_STYLES, (2, 1), FEW_GRAPH
    ),
    "caught_error": Subject(hand_made, ASKED, calls(("failing", {"x": "y"})), GRAPH_STYLES, (2, 1), FEW_GRAPH),
    "unhandled_error": Subject(
        unhandled, ASKED, calls(("failing", {"x": "y"})), RUNNABLE_STYLES, (1, 1), ("invoke", "astream")
    ),
    "provider_response": answered(ProviderStrategy(Joke)),
    "tool_response": answered(ToolStrategy(Joke)),
}  # fmt: skip

# A graph takes 30 ms: in a test run each style of the agent is recorded, and replayed by all or, for most, by itself.
# Of the others a third of all pairs is tried. OAO_ALL_PAIRS=1 tries all.
ALL = bool(os.environ.get("OAO_ALL_PAIRS"))
GRAPHS = {name for name, subject in SUBJECTS.items() if "stream_custom" in subject.styles or name == "async_tools"}


def is_tried(name: str, recorded: str, replayed: str) -> bool:
    """Return True where a pair is part of every test run."""
    if ALL or recorded == replayed:
        return True
    if name not in GRAPHS:
        styles = list(SUBJECTS[name].styles)
        return (styles.index(recorded) + styles.index(replayed)) % 3 == 0
    return recorded in MOST_GRAPH if name == "agent" else replayed in MOST_GRAPH


PAIRS = [
    (name, recorded, replayed)
    for name, subject in SUBJECTS.items()
    for recorded in subject.recorded or subject.styles
    for replayed in subject.styles
    if is_tried(name, recorded, replayed)
]


@dataclass
class Tape:
    """A subject, recorded in a style; its server is down."""

    recorded: Recorded
    subject: Any
    server: OpenAIServer
    requests: int


threads = itertools.count()


def styled(name: str, style: str, made: Any, box: list[Any]) -> Callable[..., Any]:
    """Return an agent that calls what was made in a style; a graph has a conversation of its own each time."""
    if hasattr(made, "get_state"):
        made = made.with_config(configurable={"thread_id": str(next(threads))})
    return agent_of(SUBJECTS[name].styles[style], made, SUBJECTS[name].given, box)


def multiset(items: list[Any]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in items)


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Tape]:
    """Record each subject once per style."""
    kept: dict[tuple[str, str], Tape] = {}
    folder = tmp_path_factory.mktemp("recordings")

    def tape(name: str, style: str) -> Tape:
        if (name, style) not in kept:
            subject, box = SUBJECTS[name], list[Any]()
            # A server of its own: the ids of its answers begin at 1, and no client is kept from another event loop.
            with OpenAIServer(respond=subject.respond) as server:
                made = subject.make(server.url)
                recorded = live(styled(name, style, made, box), box, folder / f"{name}-{style}.oao.json")
            kept[name, style] = Tape(recorded, made, server, len(server.requests))
        return kept[name, style]

    return tape


@pytest.mark.parametrize(("name", "recorded", "replayed"), PAIRS)
def test_one_style_replays_another(name: str, recorded: str, replayed: str, tapes: Callable[[str, str], Tape]) -> None:
    """Server down, no tool body, the same answer and counts, everything played; the same style sees the same stream."""
    subject, tape = SUBJECTS[name], tapes(name, recorded)
    ran.clear()
    box: list[Any] = []
    # A recorded call that is not made fails the replay by itself: `SUCCESS` says that everything was played.
    seen = seen_of(Orchestrator().replay(styled(name, replayed, tape.subject, box), "go", tape.recorded.recording), box)
    assert ran == []
    assert len(tape.server.requests) == tape.requests
    assert seen.answer == tape.recorded.seen.answer
    assert seen.counts == tape.recorded.seen.counts
    assert seen.counts[:2] == subject.calls
    if recorded == replayed:
        order = list if subject.ordered else multiset
        assert order(seen.stream) == order(tape.recorded.seen.stream)
