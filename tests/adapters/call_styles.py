"""Every way to call a runnable and to run a graph, as functions that return what is comparable of what came back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables.utils import AddableDict
from pydantic import BaseModel

from oao_harness import ExecutionReport, Orchestrator
from oao_harness.journal.recording import Recording

# Random in every run, live or not: ids of LangChain's runs and of LangGraph's tasks, checkpoints and messages.
_RANDOM_KEYS = frozenset(
    {"run_id", "parent_ids", "parent_run_id", "checkpoint_id", "checkpoint_ns", "langgraph_checkpoint_ns", "ls_run_id",
     "timestamp", "ts", "created_at", "parent_config", "config", "start_time", "end_time", "namespace", "ns", "parents",
     "run_ids", "event_id", "seq", "thread_id"}
)  # fmt: skip
_RANDOM_TEXT = re.compile(
    r"(lc_)?(run--)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(-\d+)?|0x[0-9a-f]+|\d{4}-\d\d-\d\dT[\d:.+]+"
)


def canon(value: Any, *, across: bool = False) -> Any:
    """Return a value without what is random in every run.

    Args:
        value: Anything that a style returned or yielded.
        across: True also leaves out what differs between styles where nothing is recorded at all: metadata of the
            response, chunk positions, and nulls that a stream does not send.
    """
    if isinstance(value, BaseMessage):
        fields = {"type": value.type.removesuffix("MessageChunk").lower(), **_fields(value, across)}
        return canon(fields, across=across)
    if isinstance(value, BaseModel):
        return canon({"model": type(value).__name__, **dict(value)}, across=across)
    if isinstance(value, Mapping):
        return {str(key): canon(item, across=across) for key, item in value.items() if str(key) not in _RANDOM_KEYS}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return canon(value._asdict(), across=across)
    if isinstance(value, list | tuple):
        return [canon(item, across=across) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _RANDOM_TEXT.sub("*", value)
    if hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        return {"object": type(value).__name__, **canon(vars(value), across=across)}
    return _RANDOM_TEXT.sub("*", str(value))


def _fields(message: BaseMessage, across: bool) -> dict[str, Any]:
    fields = {key: item for key, item in dict(message).items() if key not in {"id", "type"}}
    if across:
        for name in ("response_metadata", "chunk_position", "tool_call_chunks"):
            fields.pop(name, None)
        fields["content"] = message.text if isinstance(message.content, list) else message.content
        fields["additional_kwargs"] = {k: v for k, v in message.additional_kwargs.items() if v is not None}
        fields.setdefault("usage_metadata", None)
    return fields


def summed(chunks: Iterable[Any]) -> Any:
    """Return what a stream adds up to; parsers that yield whole values end with the last one."""
    found = list(chunks)
    is_whole = isinstance(found[0], dict | BaseModel) and not isinstance(found[0], BaseMessage | AddableDict)
    return found[-1] if is_whole else reduce(add, found)


async def _collect(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


# A style takes a runnable and an input, and returns (answer, everything that was seen on the way).
Style = Callable[[Any, Any], Any]


def _invoke(runnable: Any, given: Any) -> Any:
    answer = runnable.invoke(given)
    return answer, [answer]


async def _ainvoke(runnable: Any, given: Any) -> Any:
    answer = await runnable.ainvoke(given)
    return answer, [answer]


def _batch(runnable: Any, given: Any) -> Any:
    answers = runnable.batch([given])
    return answers[0], answers


async def _abatch(runnable: Any, given: Any) -> Any:
    answers = await runnable.abatch([given])
    return answers[0], answers


def _batch_as_completed(runnable: Any, given: Any) -> Any:
    answers = [answer for _, answer in runnable.batch_as_completed([given])]
    return answers[0], answers


async def _abatch_as_completed(runnable: Any, given: Any) -> Any:
    answers = [answer async for _, answer in runnable.abatch_as_completed([given])]
    return answers[0], answers


def _stream(runnable: Any, given: Any) -> Any:
    chunks = list(runnable.stream(given))
    return summed(chunks), chunks


async def _astream(runnable: Any, given: Any) -> Any:
    chunks = await _collect(runnable.astream(given))
    return summed(chunks), chunks


def _transform(runnable: Any, given: Any) -> Any:
    chunks = list(runnable.transform(iter([given])))
    return summed(chunks), chunks


async def _atransform(runnable: Any, given: Any) -> Any:
    async def inputs() -> AsyncIterator[Any]:
        yield given

    chunks = await _collect(runnable.atransform(inputs()))
    return summed(chunks), chunks


async def _events_v1(runnable: Any, given: Any) -> Any:
    events = await _collect(runnable.astream_events(given, version="v1"))
    return _last_output(events), events


async def _events_v2(runnable: Any, given: Any) -> Any:
    events = await _collect(runnable.astream_events(given, version="v2"))
    return _last_output(events), events


def _last_output(events: list[Any]) -> Any:
    # The root's own end; LangChain leaves out `output` where nothing could be added up.
    return events[-1]["data"].get("output")


async def _log(runnable: Any, given: Any) -> Any:
    patches = await _collect(runnable.astream_log(given))
    state = reduce(add, patches).state
    return state["final_output"], state["streamed_output"]


RUNNABLE_STYLES: dict[str, Style] = {
    "invoke": _invoke,
    "ainvoke": _ainvoke,
    "batch": _batch,
    "abatch": _abatch,
    "batch_as_completed": _batch_as_completed,
    "abatch_as_completed": _abatch_as_completed,
    "stream": _stream,
    "astream": _astream,
    "transform": _transform,
    "atransform": _atransform,
    "astream_events_v1": _events_v1,
    "astream_events_v2": _events_v2,
    "astream_log": _log,
}


def _model_events_v3(model: Any, given: Any) -> Any:
    stream = model.stream_events(given, version="v3")
    events = list(stream)
    return stream.output, events


async def _amodel_events_v3(model: Any, given: Any) -> Any:
    stream = await model.astream_events(given, version="v3")
    events = [event async for event in stream]
    return await stream.output, events


MODEL_STYLES: dict[str, Style] = {
    **RUNNABLE_STYLES,
    "stream_events_v3": _model_events_v3,
    "astream_events_v3": _amodel_events_v3,
}


def _mode(mode: Any, **options: Any) -> Style:
    def style(graph: Any, given: Any) -> Any:
        return None, list(graph.stream(given, stream_mode=mode, **options))

    return style


def _amode(mode: Any, **options: Any) -> Style:
    async def style(graph: Any, given: Any) -> Any:
        return None, await _collect(graph.astream(given, stream_mode=mode, **options))

    return style


def _graph_events_v3(graph: Any, given: Any) -> Any:
    stream = graph.stream_events(given, version="v3")
    return None, [stream.output]


async def _agraph_events_v3(graph: Any, given: Any) -> Any:
    stream = await graph.astream_events(given, version="v3")
    return None, [await stream.output()]


MODES = ("values", "updates", "messages", "custom", "tasks", "checkpoints", "debug")
GRAPH_STYLES: dict[str, Style] = {
    **{name: style for name, style in RUNNABLE_STYLES.items() if "transform" not in name},
    **{f"stream_{mode}": _mode(mode) for mode in MODES},
    **{f"astream_{mode}": _amode(mode) for mode in MODES},
    "stream_list": _mode(["values", "updates", "messages", "custom"]),
    "astream_list": _amode(["values", "updates", "messages", "custom"]),
    "stream_subgraphs": _mode(["messages", "updates"], subgraphs=True),
    "astream_subgraphs": _amode(["messages", "updates"], subgraphs=True),
    "stream_typed": _mode(["messages", "values"], version="v2"),
    "stream_events_v3": _graph_events_v3,
    "astream_events_v3": _agraph_events_v3,
}


@dataclass(frozen=True)
class Seen:
    """What one governed run gave back, comparable."""

    answer: Any
    """Equal in every style."""
    stream: Any
    """Equal where the style is the same."""
    counts: tuple[int, int, int, bool, dict[str, int]]
    """Model calls, tool calls, tokens, estimated, calls by tool."""


@dataclass(frozen=True)
class Recorded:
    """A run in one style, and its recording, through a file."""

    seen: Seen
    recording: Recording


def seen_of(report: ExecutionReport, box: list[Any]) -> Seen:
    """Return what is comparable of a run that went well."""
    assert report.status == "SUCCESS", report.error
    answer, stream = box[-1]
    counts = (report.model_calls, report.tool_calls, report.total_tokens, report.tokens_estimated, report.tool_usage)
    return Seen(canon(answer, across=True), canon(stream), counts)


def agent_of(style: Style, subject: Any, given: Any, box: list[Any]) -> Callable[..., Any]:
    """Return an agent that calls a runnable in one style and leaves what came back in `box`."""

    def finished(result: Any) -> str:
        answer, stream = result
        if hasattr(subject, "get_state"):
            # Whatever a mode shows of it: the state that the graph came to.
            answer = subject.get_state(subject.config).values
        box.append((answer, stream))
        return "done"

    if asyncio.iscoroutinefunction(style):

        async def asynchronous(task: object) -> str:
            return finished(await style(subject, given))

        return asynchronous

    def synchronous(task: object) -> str:
        return finished(style(subject, given))

    return synchronous


def live(agent: Callable[..., Any], box: list[Any], path: Any) -> Recorded:
    """Run an agent and keep its recording in a file, as a test's fixture is."""
    orchestrator = Orchestrator()
    report = orchestrator.run(agent, "go")
    seen = seen_of(report, box)
    Recording.from_records(orchestrator.store.read(report.execution_id)).save(path)
    return Recorded(seen, Recording.load(path))
