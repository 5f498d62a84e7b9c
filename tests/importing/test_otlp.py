"""Traces in OTLP-JSON become recordings: spans and messages of the GenAI conventions, new and old."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from oao_harness.errors import RecordingError
from oao_harness.importing.forms import import_runs
from oao_harness.importing.runs import ImportedRun
from oao_harness.journal.recording import Recording

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
TOKENS = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 4}
ASKED = [
    {"role": "user", "parts": [{"type": "text", "content": "Refund A-1"}]},
]
TWO_CALLS = {
    "role": "assistant",
    "finish_reason": "tool_call",
    "parts": [
        {"type": "tool_call", "id": "c1", "name": "find", "arguments": {"order": "A-1"}},
        {"type": "tool_call", "id": "c2", "name": "rate", "arguments": '{"stars": 5}'},
    ],
}
RESULTS = {
    "role": "tool",
    "parts": [
        {"type": "tool_call_response", "id": "c1", "response": "found"},
        {"type": "tool_call_response", "id": "c2", "response": {"ok": True}},
    ],
}
SAID = {"role": "assistant", "parts": [{"type": "text", "content": "Done"}], "finish_reason": "stop"}


def value(plain: Any) -> dict[str, Any]:
    """Return a value as OTLP-JSON writes it."""
    if isinstance(plain, bool):
        return {"boolValue": plain}
    if isinstance(plain, int):
        return {"intValue": str(plain)}
    if isinstance(plain, float):
        return {"doubleValue": plain}
    if isinstance(plain, list):
        return {"arrayValue": {"values": [value(item) for item in plain]}}
    if isinstance(plain, dict):
        return {"kvlistValue": {"values": attributes(plain)}}
    return {"stringValue": plain}


def attributes(plain: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(item)} for key, item in plain.items()]


def span(id: str, start: int, end: int, said: Mapping[str, Any], *, parent: str = "", **more: Any) -> dict[str, Any]:
    return {
        "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": id, "parentSpanId": parent, "name": id,
        "startTimeUnixNano": str(start * 10**9), "endTimeUnixNano": str(end * 10**9),
        "attributes": attributes(said), **more,
    }  # fmt: skip


def document(*spans: dict[str, Any]) -> dict[str, Any]:
    resource = {"attributes": attributes({"service.name": "shop"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "x"}, "spans": list(spans)}]}]}


def imported(tmp_path: Path, *documents: Any) -> list[ImportedRun]:
    path = tmp_path / "trace.json"
    path.write_text("\n".join(json.dumps(one) for one in documents), "utf-8")
    return import_runs(path)


def only(tmp_path: Path, *spans: dict[str, Any]) -> ImportedRun:
    [run] = imported(tmp_path, document(*spans))
    return run


def messages(*items: Any) -> str:
    return json.dumps(items)


def tool_span(id: str, start: int, end: int, name: str, **more: Any) -> dict[str, Any]:
    said = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name, **more.pop("said", {})}
    return span(id, start, end, said, **more)


def agent_trace() -> list[dict[str, Any]]:
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "support"}
    system = json.dumps([{"type": "text", "content": "Be kind."}])
    first = {
        **CHAT, **TOKENS, "gen_ai.request.temperature": 0.5, "gen_ai.system_instructions": system,
        "gen_ai.input.messages": messages(*ASKED), "gen_ai.output.messages": messages(TWO_CALLS),
    }  # fmt: skip
    second = {
        **CHAT, **TOKENS, "gen_ai.system_instructions": system,
        "gen_ai.input.messages": messages(*ASKED, TWO_CALLS, RESULTS), "gen_ai.output.messages": messages(SAID),
    }  # fmt: skip
    find = {
        "gen_ai.tool.call.id": "c1", "gen_ai.tool.call.arguments": '{"order": "A-1"}',
        "gen_ai.tool.call.result": "found",
    }  # fmt: skip
    return [
        span("root", 1, 9, agent),
        span("a", 2, 3, first, parent="root"),
        tool_span("b", 4, 5, "find", parent="root", said=find),
        tool_span("c", 4, 6, "rate", parent="root", said={"gen_ai.tool.call.id": "c2"}),
        span("d", 7, 8, second, parent="root"),
    ]


def test_spans_become_calls(tmp_path: Path) -> None:
    """Requests, answers, tokens, ids, arguments, results, times, batches; what a span leaves out the messages tell."""
    run = only(tmp_path, *agent_trace())
    first, find, rate, second = run.recording.events

    assert [(e.kind, e.name, e.run) for e in run.recording.events] == [
        ("model", "m", "support"), ("tool", "find", "support"), ("tool", "rate", "support"), ("model", "m", "support"),
    ]  # fmt: skip
    assert first.request == {
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Refund A-1"}],
        "temperature": 0.5,
    }
    assert first.usage is not None
    assert first.usage.total_tokens == 14
    assert (find.request, find.value, find.call_id, find.batch) == ({"order": "A-1"}, "found", "c1", first.n)
    assert (rate.request, rate.value, rate.batch) == ({"stars": 5}, {"ok": True}, first.n)
    assert find.start < rate.start < find.end < rate.end or rate.start < find.start < find.end < rate.end
    assert (find.at, find.took_s) == (4.0, 1.0)
    assert second.value == {"message": {"role": "assistant", "content": "Done"}}
    assert (run.recording.header["task"], run.recording.header["agent"]) == ("Refund A-1", "support")
    assert run.notes == ("the tools offered to the model are not recorded, or there are none",)
    run.recording.save(tmp_path / "x.oao.json")
    assert Recording.load(tmp_path / "x.oao.json") == run.recording


def test_tool_calls_without_spans_are_calls_all_the_same(tmp_path: Path) -> None:
    """An agent whose tools nobody traced: answers ask for the calls, later requests hold the results."""
    spans = [one for one in agent_trace() if one["spanId"] not in {"b", "c"}]
    run = only(tmp_path, *spans)

    assert [(e.name, e.request, e.value) for e in run.recording.events if e.kind == "tool"] == [
        ("find", {"order": "A-1"}, "found"), ("rate", {"stars": 5}, {"ok": True}),
    ]  # fmt: skip
    assert "2 tool calls have no span of their own; the messages tell of them" in run.notes
    alone = only(tmp_path, spans[1])
    assert [e.finished for e in alone.recording.events] == [True, False, False], "nobody knows how they ended"


def test_what_is_not_recorded_is_said(tmp_path: Path) -> None:
    """Content is opt-in: most traces have names and tokens only."""
    run = only(tmp_path, span("a", 1, 2, CHAT), tool_span("b", 3, 4, "find"), span("c", 5, 6, {**CHAT, **TOKENS}))

    assert [(e.kind, e.request) for e in run.recording.events] == [
        ("model", {"messages": []}), ("tool", {}), ("model", {"messages": []}),
    ]  # fmt: skip
    for note in (
        "2 model calls have no recorded request", "2 model calls have no recorded answer",
        "1 model calls have no recorded tokens", "1 tool calls have no recorded result",
        "1 tool calls have no recorded arguments: rules about arguments judge them as empty",
    ):  # fmt: skip
        assert note in run.notes
    assert run.recording.header["agent"] == "shop", "the name of the service, where no agent has one"


def test_older_events_are_read(tmp_path: Path) -> None:
    """One event for each message, and one for the answer (1.28 to 1.36); and one with all details."""

    def event(name: str, **said: Any) -> dict[str, Any]:
        return {"name": name, "timeUnixNano": "1", "attributes": attributes(said)}

    calls = json.dumps([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}])
    old = [
        event("gen_ai.system.message", content="Be kind."),
        event("gen_ai.user.message", content="Hi"),
        event(
            "gen_ai.choice", index=0, finish_reason="tool_calls", message=json.dumps({"tool_calls": json.loads(calls)})
        ),
    ]
    later = [
        event("gen_ai.assistant.message", tool_calls=calls),
        event("gen_ai.tool.message", id="c1", content="one"),
        event("gen_ai.choice", index=0, message={"content": "Bye"}),
    ]
    run = only(tmp_path, span("a", 1, 2, CHAT, events=old), span("b", 3, 4, CHAT, events=later))
    first, called, last = run.recording.events

    assert [m["content"] for m in first.request["messages"]] == ["Be kind.", "Hi"]  # type: ignore[union-attr,index,call-overload]
    assert (called.name, called.request, called.value) == ("f", {"x": 1}, "one")
    assert last.value == {"message": {"role": "assistant", "content": "Bye"}}
    details = event(
        "gen_ai.client.inference.operation.details",
        **{"gen_ai.input.messages": ASKED, "gen_ai.output.messages": [SAID]},
    )
    [event_] = only(tmp_path, span("a", 1, 2, CHAT, events=[details])).recording.events
    assert event_.request["messages"] == [{"role": "user", "content": "Refund A-1"}]


def test_agents_inside_of_tools_are_nested_calls(tmp_path: Path) -> None:
    """A call inside of a tool's span has that call as its parent, and the inner agent's name."""
    run = only(
        tmp_path,
        tool_span("t", 1, 9, "ask_helper"),
        span("i", 2, 8, {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"}, parent="t"),
        span("m", 3, 4, CHAT, parent="i"),
        span("e", 5, 6, {"gen_ai.operation.name": "embeddings"}, parent="i"),
    )
    outer, inner = run.recording.events

    assert (outer.n, inner.parent, inner.run) == (1, 1, "helper")
    assert outer.start < inner.start < inner.end < outer.end
    assert "1 spans of the operation 'embeddings' are no call of a model or a tool" in run.notes


def test_traces_and_lines_are_runs_of_their_own(tmp_path: Path) -> None:
    """A collector's file has one export on each line; spans of a trace may be in several, and one of them twice."""
    one, other = span("a", 1, 2, CHAT), {**span("a", 1, 2, CHAT), "traceId": "ff"}
    runs = imported(tmp_path, document(one), document(other, one), document(span("b", 3, 4, CHAT, parent="a")))

    assert [(run.name, len(run.recording.events)) for run in runs] == [("trace-5b8efff79803", 2), ("trace-ff", 1)]
    assert "1 spans are in the file twice" in runs[0].notes
    assert len(imported(tmp_path, [document(one), document(other)])) == 2


def test_failed_and_unfinished_calls(tmp_path: Path) -> None:
    """By status, by error.type, by the exception's event; a span without an end has no outcome."""
    failed = {"status": {"code": 2, "message": "no luck"}}
    raised = {"name": "exception", "attributes": attributes({"exception.message": "bad key"})}
    run = only(
        tmp_path,
        tool_span("a", 1, 2, "f", **failed),
        tool_span("b", 3, 4, "f", said={"error.type": "KeyError"}, events=[raised]),
        {**tool_span("c", 5, 5, "f"), "endTimeUnixNano": "0"},
    )
    first, second, third = run.recording.events

    assert first.error is not None
    assert second.error is not None
    assert (first.error.type, first.error.message) == ("otlp:Error", "no luck")
    assert (second.error.type, second.error.message) == ("otlp:KeyError", "bad key")
    assert (third.finished, third.error) == (False, None)


def test_two_instrumentations_of_one_call_do_not_double_its_tools(tmp_path: Path) -> None:
    """A framework's span around a client's: both are calls, said, and the tools are asked for once."""
    said = {**CHAT, "gen_ai.output.messages": messages(TWO_CALLS)}
    run = only(tmp_path, span("a", 1, 4, said), span("b", 2, 3, said, parent="a"))

    assert [e.kind for e in run.recording.events] == ["model", "model", "tool", "tool"]
    assert any("two instrumentations" in note for note in run.notes)


def broken(**more: Any) -> dict[str, Any]:
    return {**span("a", 1, 2, CHAT), **more}


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([broken(spanId="")], r"spans\[0\].spanId is empty"),
        ([broken(traceId=None)], "traceId is missing"),
        ([broken(startTimeUnixNano="soon")], "startTimeUnixNano is 'soon'"),
        ([broken(endTimeUnixNano="5")], "ends before it begins"),
        ([broken(attributes={"a": 1})], "attributes is {'a': 1}, not a list"),
        ([broken(attributes=[{"key": "a", "value": {"newValue": 1}}])], "none of the types that OTLP knows: newValue"),
        ([broken(attributes=[{"key": "a", "value": {"intValue": "x"}}])], "no whole number"),
        ([broken(attributes=[{"key": "a", "value": {"stringValue": 5}}])], "not of its type"),
        ([broken(attributes=attributes(CHAT) * 2)], "'gen_ai.operation.name' twice"),
        ([broken(), broken(name="other")], "the id 'a' of another span"),
        ([broken(parentSpanId="a")], "round in a ring"),
        ([broken(events=[5])], r"events\[0\] is 5, not an object"),
        ([span("a", 1, 2, {"http.method": "GET"})], "none of its 1 spans is a call"),
        ([], "none of its 0 spans is a call"),
        ([span("a", 1, 2, {**CHAT, "gen_ai.input.messages": "[{"})], "gen_ai.input.messages is no JSON"),
        ([span("a", 1, 2, {**CHAT, "gen_ai.output.messages": '[{"parts": 5}]'})], "parts is 5, not a list"),
        ([span("a", 1, 2, {**CHAT, "gen_ai.usage.input_tokens": -1})], "whole numbers >= 0"),
        ([span("a", 1, 2, {"gen_ai.operation.name": "execute_tool"})], "without gen_ai.tool.name"),
        ([tool_span("a", 1, 2, "f", said={"gen_ai.tool.call.arguments": "[1]"})], "not an object"),
        (
            [span("a", 1, 2, {**CHAT, "gen_ai.output.messages": messages({"parts": [{"type": "tool_call"}]})})],
            "a tool call without a name",
        ),
    ],
    ids=range(20),
)
def test_damage_is_said_with_its_place(tmp_path: Path, spans: Sequence[dict[str, Any]], said: str) -> None:
    """Each an error of ours that names the span."""
    with pytest.raises(RecordingError, match=said) as caught:
        imported(tmp_path, document(*spans))
    assert "trace.json" in str(caught.value)
