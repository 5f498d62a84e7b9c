"""One-line previews of requests and outcomes: enough to recognise a call, never the whole of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from oao_harness.journal.timeline import mapping, text
from oao_harness.wording.texts import compact, one_line
from oao_hookspecs import Json, Record

__all__ = ["arguments", "outcome", "request"]

# The codec's mark of a value that JSON does not have; what a person wants to see is inside of it.
_TAG: Final = "$oao"


def request(call: Record) -> str:
    """Return what a call asks for: a tool's arguments, or the newest message of a conversation."""
    asked = mapping(call, "req")
    if call.get("kind") != "model":
        return f"{text(call, 'name')}({arguments(asked)})"
    messages = asked.get("messages")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return compact(dict(asked))
    newest = messages[-1]
    if not isinstance(newest, Mapping):
        return compact(newest)
    return f"{text(newest, 'role') or 'message'}: {_content(newest)}"


def arguments(asked: Mapping[str, Json]) -> str:
    """Return arguments as they are written in Python: `order="A-1", amount=5`."""
    return ", ".join(f"{one_line(key)}={_quoted(value)}" for key, value in asked.items())


def outcome(call: Record, ended: Record) -> str:
    """Return what a call returned, or its error."""
    error = mapping(ended, "error")
    if error:
        return one_line(f"{text(error, 'type').rpartition(':')[2]}: {text(error, 'message')}")
    answer = _plain(ended.get("res"))
    return _said(answer) if call.get("kind") == "model" else compact(answer)


def _quoted(value: Json) -> str:
    return f'"{one_line(value)}"' if isinstance(value, str) else compact(_plain(value))


def _said(value: Json) -> str:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return one_line("".join(str(item) for item in value))
    if not isinstance(value, Mapping):
        return compact(value)
    if "status" in value and ("body" in value or "events" in value):
        from oao_harness.adapters.wire_answers import message_of  # noqa: PLC0415 - only for recordings of a client

        said = message_of(value)
        value = said if said["content"] or said["calls"] else value
    # What a LangChain chat model answered stands beside its usage.
    inner = value.get("message")
    value = inner if isinstance(inner, Mapping) and ("content" in inner or "calls" in inner) else value
    asks = _asks(value)
    return f"asks for {asks}" if asks else _content(value)


def _asks(answer: Mapping[str, Json]) -> str:
    """Return the tool calls that a model's answer asks for, in any of the usual spellings."""
    calls = answer.get("tool_calls") or answer.get("calls")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        return ""
    named = [call for call in calls if isinstance(call, Mapping) and isinstance(call.get("name"), str)]
    return ", ".join(
        f"{text(call, 'name')}({arguments(mapping(call, 'args') or mapping(call, 'arguments'))})" for call in named
    )


def _content(message: Mapping[str, Json]) -> str:
    for key in ("content", "text", "output"):
        if message.get(key):
            return compact(_plain(message[key]))
    return _asks(message) or compact(dict(message))


def _plain(value: Json) -> Json:
    while isinstance(value, Mapping) and _TAG in value and "value" in value:
        value = value["value"]
    return value
