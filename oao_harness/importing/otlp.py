"""Makes recordings of traces in OTLP-JSON with GenAI spans: one run for each trace.

Model calls are spans of the operations `chat`, `text_completion` and `generate_content`, tool calls those of
`execute_tool`; a tool call that only the messages tell of is one too. What an agent did is under its `invoke_agent`.

Source: OpenTelemetry semantic conventions for generative AI, spans and events; 1.28 to 1.38.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from oao_harness.errors import RecordingError
from oao_harness.importing.messages import Said, said_in
from oao_harness.importing.reading import Node, parsed
from oao_harness.importing.runs import ImportedRun, RunBuilder
from oao_harness.importing.spans import Span, is_otlp, spans_in
from oao_hookspecs import ErrorInfo, Json, ProposedCall, Usage

__all__ = ["FORM", "is_otlp", "runs_of_otlp"]

FORM: Final = "otlp"
_MODEL: Final = frozenset({"chat", "text_completion", "generate_content"})
_TOOL: Final = "execute_tool"
_AGENT: Final = frozenset({"invoke_agent", "create_agent"})
_PREFIX: Final = "gen_ai."
_PARAMS: Final = (
    "max_tokens", "temperature", "top_p", "top_k", "seed", "stop_sequences", "frequency_penalty", "presence_penalty",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class _Call:
    """A span that is a call, or a call that only messages tell of."""

    kind: Literal["model", "tool"]
    span: Span
    depth: int
    agent: str
    parent: _Call | None
    said: Said | None = None
    proposed: ProposedCall | None = None
    """Of a tool call."""
    value: Json = None
    finished: bool = True
    is_told: bool = False
    """True where there is no span of its own."""
    asked_by: _Call | None = None
    """The model call whose answer asks for it together with others."""
    start: int = 0
    end: int = 0
    n: int = 0
    told: list[_Call] = field(default_factory=list["_Call"])
    """The tool calls that its answer asks for, and that have no span."""


def runs_of_otlp(documents: Sequence[Json], source: str) -> list[ImportedRun]:
    """Return the runs of traces, in the order in which the traces begin in the file.

    Args:
        documents: One for each line of the file.
        source: Its name.

    Raises:
        RecordingError: A span is damaged; says where, and not in which file.
    """
    spans, doubles = spans_in(documents)
    traces: dict[str, list[Span]] = {}
    for span in spans:
        traces.setdefault(span.trace, []).append(span)
    runs = [_run(trace, members, source, doubles) for trace, members in traces.items()]
    found = [run for run in runs if run.recording.events]
    if not found:
        raise RecordingError(
            f"none of its {len(spans)} spans is a call of a model or a tool: none has gen_ai.operation.name = chat, "
            "text_completion, generate_content or execute_tool"
        )
    return found


def _run(trace: str, spans: Sequence[Span], source: str, doubles: int) -> ImportedRun:
    roots = _rooted(spans)
    agent = next((name for span in _walk(roots) if (name := _agent_of(span))), "") or next(
        (str(span.resource["service.name"]) for span in spans if span.resource.get("service.name")), "agent"
    )
    run = RunBuilder(form=FORM, source=source, agent=agent, name=f"trace-{trace[:12]}")
    calls: list[_Call] = []
    other: Counter[str] = Counter()
    for root in roots:
        _collect(root, agent, None, calls, other)
    for name, count in sorted(other.items()):
        run.note(f"{count} spans of the operation {name!r:.60} are no call of a model or a tool")
    if doubles:
        run.note(f"{doubles} spans are in the file twice")
    known = {span.id for span in spans}
    if any(span.parent and span.parent not in known for span in spans):
        run.note("spans whose parent is not in the file are taken as roots")
    _tell_tools(calls, run)
    _put_in_order(calls)
    began = min((span.start for span in spans), default=0)
    _write(run, calls, began)
    run.head(trace=trace, clock=began / 1e9)
    return run.build()


def _rooted(spans: Sequence[Span]) -> list[Span]:
    """Put each span under its parent, and return those without one, or in a ring."""
    by_id = {span.id: span for span in spans}
    roots: list[Span] = []
    for span in spans:
        parent = by_id.get(span.parent)
        if parent is None:
            roots.append(span)
        else:
            parent.children.append(span)
    reached = {span.id for span in _walk(roots)}
    for span in spans:
        if span.id not in reached:
            raise RecordingError(f"{span.where}: its parents go round in a ring")
    return roots


def _walk(spans: Sequence[Span]) -> Iterator[Span]:
    pending = list(reversed(spans))
    while pending:
        span = pending.pop()
        yield span
        pending.extend(reversed(span.children))


def _agent_of(span: Span) -> str:
    name = span.attributes.get(f"{_PREFIX}agent.name")
    return name if isinstance(name, str) else ""


def _collect(root: Span, agent: str, outer: _Call | None, calls: list[_Call], other: Counter[str]) -> None:
    pending: list[tuple[Span, str, _Call | None, int]] = [(root, agent, outer, 0)]
    while pending:
        span, name, parent, depth = pending.pop()
        operation = span.attributes.get(f"{_PREFIX}operation.name")
        if operation is None and f"{_PREFIX}tool.name" in span.attributes:
            operation = _TOOL
        elif operation is None and f"{_PREFIX}request.model" in span.attributes:
            operation = "chat"
        if operation is not None and not isinstance(operation, str):
            raise RecordingError(f"{span.where} gen_ai.operation.name is {operation!r:.60}, not a text")
        own = _agent_of(span) or name
        call: _Call | None = None
        if operation in _MODEL:
            call = _Call(kind="model", span=span, depth=depth, agent=own, parent=parent, said=said_in(span))
        elif operation == _TOOL:
            call = _Call(kind="tool", span=span, depth=depth, agent=own, parent=parent)
        elif operation in _AGENT or operation is None:
            pass
        else:
            other[operation] += 1
        if call is not None:
            calls.append(call)
        pending += [(child, own, call or parent, depth + 1) for child in reversed(span.children)]


def _tell_tools(calls: list[_Call], run: RunBuilder) -> None:
    """Give the spans of tools what messages tell of them, and find the calls that only messages tell of."""
    models = [call for call in calls if call.said is not None]
    models.sort(key=lambda call: (call.span.end or call.span.start, call.depth))
    results: dict[str, Json] = {}
    for model in models:
        results |= model.said.results if model.said is not None else {}
    spans = sorted((call for call in calls if call.kind == "tool"), key=lambda call: call.span.start)
    unclaimed = list(spans)
    for model in models:
        asked = model.said.proposed if model.said is not None else ()
        if model.parent is not None and model.parent.kind == "model":
            run.count("{n} model calls are inside of another one: two instrumentations may tell of the same call")
            if model.parent.said is not None and model.parent.said.proposed:
                continue  # the outer one asks for the same tools
        for one in asked:
            mine = next((call for call in unclaimed if _is_span_of(call, one, model)), None)
            if mine is not None:
                unclaimed.remove(mine)
                mine.proposed = one
            else:
                told = _Call(
                    kind="tool", span=model.span, depth=model.depth, agent=model.agent, parent=model.parent,
                    proposed=one, is_told=True, finished=one.call_id in results,
                    value=results.get(one.call_id or ""),
                )  # fmt: skip
                model.told.append(mine := told)
                calls.append(told)
                run.count("{n} tool calls have no span of their own; the messages tell of them")
            mine.asked_by = model if len(asked) > 1 else None
    for call in spans:
        _read_tool(call, results, run)
    known = {call.proposed.call_id for call in calls if call.proposed is not None}
    for call_id in {one for model in models if model.said is not None for one in model.said.asked_before}:
        if call_id not in known:
            run.count("{n} tool calls that requests tell of were asked for by no recorded answer; they are left out")


def _is_span_of(call: _Call, asked: ProposedCall, model: _Call) -> bool:
    attributes = call.span.attributes
    call_id = attributes.get(f"{_PREFIX}tool.call.id")
    if call_id and asked.call_id:
        return call_id == asked.call_id
    return _tool_name(call.span) == asked.name and call.span.start >= model.span.start


def _tool_name(span: Span) -> str:
    name = span.attributes.get(f"{_PREFIX}tool.name")
    if isinstance(name, str) and name:
        return name
    named = span.name.removeprefix(f"{_TOOL} ")
    if named and named != span.name:
        return named
    raise RecordingError(f"{span.where} is a tool call without gen_ai.tool.name")


def _read_tool(call: _Call, results: dict[str, Json], run: RunBuilder) -> None:
    """Take name, arguments and result of a tool's span, or of the messages where the span says nothing."""
    span, asked = call.span, call.proposed
    name = _tool_name(span)
    call_id = span.attributes.get(f"{_PREFIX}tool.call.id")
    given = span.attributes.get(f"{_PREFIX}tool.call.arguments", span.attributes.get("tool_arguments"))
    arguments: Node = dict(asked.arguments) if asked is not None else {}
    if given is not None:
        arguments = _arguments(given, f"{span.where} gen_ai.tool.call.arguments")
    elif asked is None:
        run.count("{n} tool calls have no recorded arguments: rules about arguments judge them as empty")
    call.proposed = ProposedCall(
        name=name,
        arguments=arguments,
        call_id=(call_id if isinstance(call_id, str) and call_id else None) or (asked.call_id if asked else None),
    )
    call.finished = span.end is not None
    returned = span.attributes.get(f"{_PREFIX}tool.call.result", span.attributes.get("tool_response"))
    if returned is None:
        known = call.proposed.call_id in results
        returned = results.get(call.proposed.call_id or "")
        if not known and call.finished and span.failed is None:
            run.count("{n} tool calls have no recorded result")
    call.value = returned


def _arguments(value: Json, where: str) -> Node:
    found = parsed(value, where) if isinstance(value, str) and value.strip() else value
    if found is None or found == "":
        return {}
    if not isinstance(found, dict):
        raise RecordingError(f"{where} is {found!r:.60}, not an object")
    return found


def _put_in_order(calls: list[_Call]) -> None:
    """Give every call its ticks: by time; what a model's answer asks for comes after it, before what began later."""
    points: list[tuple[int, int, int, int, int, _Call]] = []
    last = max((call.span.end or call.span.start for call in calls), default=0) + 1
    for index, call in enumerate(calls):
        if call.is_told:
            continue
        end = call.span.end if call.span.end is not None else last
        # At one moment: what began earlier ends, then what is outside begins before what is inside of it.
        points.append((call.span.start, 1, call.depth, index, 1, call))
        points.append((end, 0 if end > call.span.start else 2, -call.depth, index, 0, call))
    tick = 0
    for _, _, _, _, begins, call in sorted(points, key=lambda point: point[:5]):
        tick += 1
        if begins:
            call.start = tick
            continue
        call.end = tick
        for told in call.told:
            told.start, told.end = tick + 1, tick + 2
            tick += 2
    calls.sort(key=lambda call: call.start)


def _write(run: RunBuilder, calls: Sequence[_Call], began: int) -> None:
    for call in calls:
        span, error = call.span, _error(call)
        at = took = None
        if not call.is_told and span.end is not None:
            at, took = round((span.end - began) / 1e9, 6), round((span.end - span.start) / 1e9, 3) or None
        parent = call.parent.n or None if call.parent is not None else None
        place = (call.start, call.end)
        if call.kind == "tool":
            asked = call.proposed
            if asked is None:
                raise RecordingError(f"{span.where} is a tool call without a name")
            batch = call.asked_by.n if call.asked_by is not None else None
            call.n = run.tool(
                asked, agent=call.agent, batch=batch, value=call.value, error=error, finished=call.finished,
                span=place, parent=parent, at=at, took_s=took,
            )  # fmt: skip
        else:
            call.n = _write_model(run, call, error, parent, (at, took))


def _write_model(
    run: RunBuilder, call: _Call, error: ErrorInfo | None, parent: int | None, ended: tuple[float | None, float | None]
) -> int:
    span, said = call.span, call.said or Said()
    get = span.attributes.get
    name = get(f"{_PREFIX}request.model") or get(f"{_PREFIX}response.model")
    if not name:
        run.count("{n} model calls do not say which model")
    if not said.messages:
        run.count("{n} model calls have no recorded request")
    elif not said.has_system:
        run.note("the system prompt is not recorded, or there is none")
    if said.answer is None and error is None and span.end is not None:
        run.count("{n} model calls have no recorded answer")
    usage = _usage(span)
    if usage is None:
        run.count("{n} model calls have no recorded tokens")
    if not said.tools:
        run.note("the tools offered to the model are not recorded, or there are none")
    if run.task is None:
        run.task = said.task
    params: dict[str, Json] = {key: value for key in _PARAMS if (value := get(f"{_PREFIX}request.{key}")) is not None}
    answer: Json = said.answer if said.answer is not None else {"role": "assistant", "content": None}
    return run.model(
        str(name or "unknown"), said.messages, answer, agent=call.agent, tools=said.tools, params=params, usage=usage,
        error=error, finished=span.end is not None, span=(call.start, call.end), parent=parent, at=ended[0],
        took_s=ended[1],
    )  # fmt: skip


def _usage(span: Span) -> Usage | None:
    get = span.attributes.get
    sent, received = (
        _tokens(span, key, old)
        for key, old in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
    )
    if sent is None and received is None:
        return None
    estimated = get(f"{_PREFIX}usage.estimated") is True
    return Usage(input_tokens=sent or 0, output_tokens=received or 0, estimated=estimated)


def _tokens(span: Span, key: str, old: str) -> int | None:
    value = span.attributes.get(f"{_PREFIX}usage.{key}", span.attributes.get(f"{_PREFIX}usage.{old}"))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        raise RecordingError(f"{span.where} gen_ai.usage.{key} is {value!r:.60}; tokens are whole numbers >= 0")
    return int(value)


def _error(call: _Call) -> ErrorInfo | None:
    span = call.span
    kind = span.attributes.get("error.type")
    if call.is_told or (span.failed is None and not kind):
        return None
    said = next(
        (str(one.attributes.get("exception.message") or "") for one in span.events if one.name == "exception"), ""
    )
    message = said or (span.failed if span.failed != "failed" else None) or str(kind or "failed")
    return ErrorInfo(type=f"otlp:{kind or 'Error'}", message=message)
