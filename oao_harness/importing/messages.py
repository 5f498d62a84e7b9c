"""Reads what GenAI spans say of a model's request and answer: as attributes, and as the events of older versions.

Source: OpenTelemetry semantic conventions for generative AI: `gen_ai.input.messages`, `gen_ai.output.messages`,
`gen_ai.system_instructions` (1.37), the events `gen_ai.*.message` and `gen_ai.choice` (1.28 to 1.36), and
`gen_ai.client.inference.operation.details`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from oao_harness.errors import RecordingError
from oao_harness.importing.reading import Node, list_at, node_at, parsed, text_of
from oao_harness.importing.spans import Event, Span
from oao_hookspecs import Json, ProposedCall

__all__ = ["Said", "said_in"]

_INPUT: Final = "gen_ai.input.messages"
_OUTPUT: Final = "gen_ai.output.messages"
_SYSTEM: Final = "gen_ai.system_instructions"
_TOOLS: Final = "gen_ai.tool.definitions"
_DETAILS: Final = "gen_ai.client.inference.operation.details"
_CHOICE: Final = "gen_ai.choice"
_ROLES: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}


@dataclass(slots=True, kw_only=True)
class Said:
    """What a span says of a request and its answer."""

    messages: list[Json] = field(default_factory=list[Json])
    answer: Json = None
    """None where none is recorded."""
    tools: Sequence[Json] = ()
    proposed: list[ProposedCall] = field(default_factory=list[ProposedCall])
    """The tool calls that the answer asks for."""
    results: Node = field(default_factory=dict[str, Json])
    """Results of tools in the request, by the id of the call."""
    asked_before: list[str] = field(default_factory=list[str])
    """Ids of the tool calls that the request tells of."""
    has_system: bool = False
    task: str | None = None
    """The first text of the user."""


def said_in(span: Span) -> Said:
    """Return what a span says of a model call.

    Raises:
        RecordingError: It is damaged; says where, and not in which file.
    """
    said = Said()
    sources = [span.attributes, *(event.attributes for event in span.events if event.name == _DETAILS)]
    for attributes in sources:
        if not said.messages:
            for index, one in enumerate(_listed(attributes.get(_SYSTEM), f"{span.where} {_SYSTEM}")):
                _hear(said, {"role": "system", "parts": [one]}, f"{span.where} {_SYSTEM}[{index}]")
            for index, one in enumerate(_listed(attributes.get(_INPUT), f"{span.where} {_INPUT}")):
                _hear(said, one, f"{span.where} {_INPUT}[{index}]")
        if said.answer is None:
            for index, one in enumerate(_listed(attributes.get(_OUTPUT), f"{span.where} {_OUTPUT}")):
                _answer(said, one, f"{span.where} {_OUTPUT}[{index}]")
        said.tools = said.tools or _listed(attributes.get(_TOOLS), f"{span.where} {_TOOLS}")
    has_input, has_output = bool(said.messages), said.answer is not None
    for index, event in enumerate(span.events):
        at = f"{span.where}.events[{index}]"
        if event.name in _ROLES and not has_input:
            _hear(said, _message_of(event, at, _ROLES[event.name]), at)
        elif event.name == _CHOICE and not has_output:
            _answer(said, _message_of(event, at, "assistant"), at)
    return said


def _listed(value: Json, where: str) -> list[Json]:
    """Return an attribute that is a list, or JSON text of one; a text that is no JSON is one part."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        if not value.lstrip().startswith(("[", "{")):
            return [{"role": "user", "type": "text", "content": value}]
        value = parsed(value, where)
    return [value] if isinstance(value, dict) else list_at(value, where)


def _message_of(event: Event, where: str, role: str) -> Node:
    """Return the message of an event: its body, or its attributes; parts of it may be JSON text."""
    node: Node = dict(event.attributes)
    body = node.get("body", node.get("event.body"))
    if body is not None:
        node = node_at(parsed(body, where) if isinstance(body, str) else body, where)
    inner = node.get("message")
    if inner is not None:
        node = {**node, **node_at(parsed(inner, where) if isinstance(inner, str) else inner, f"{where}.message")}
    calls = node.get("tool_calls")
    if isinstance(calls, str):
        node["tool_calls"] = parsed(calls, f"{where}.tool_calls")
    return {"role": role, **{key: item for key, item in node.items() if not key.startswith("gen_ai.")}}


def _hear(said: Said, value: Json, where: str) -> None:
    """Take in one message of a request."""
    node = node_at(value, where)
    role = str(node.get("role") or "user")
    texts, calls, results = _parts(node, where)
    said.has_system = said.has_system or role in {"system", "developer"}
    if role == "user" and said.task is None and texts:
        said.task = "\n".join(texts)
    if role in {"tool", "function"} and not results:
        results = [(_text_or_none(node.get("id", node.get("tool_call_id"))), text_of(node.get("content")))]
    for call_id, result in results:
        message: dict[str, Json] = {"role": "tool", "content": result}
        said.messages.append(message if call_id is None else {**message, "call_id": call_id})
        if call_id is not None:
            said.results.setdefault(call_id, result)
    said.asked_before += [call.call_id for call in calls if call.call_id is not None]
    if texts or calls or not results:
        said.messages.append(_shown(role, texts, calls))


def _answer(said: Said, value: Json, where: str) -> None:
    """Take in an answer; of several the first is the one, and all of them ask for tools."""
    node = node_at(value, where)
    texts, calls, _ = _parts(node, where)
    said.proposed += calls
    if said.answer is None:
        said.answer = _shown("assistant", texts, calls)


def _shown(role: str, texts: Sequence[str], calls: Sequence[ProposedCall]) -> Json:
    message: dict[str, Json] = {"role": role, "content": "\n".join(texts) if texts else None}
    if calls:
        message["calls"] = [
            {**({"id": call.call_id} if call.call_id else {}), "name": call.name, "args": call.arguments}
            for call in calls
        ]
    return message


def _parts(node: Node, where: str) -> tuple[list[str], list[ProposedCall], list[tuple[str | None, Json]]]:
    """Return the texts, the tool calls and the results of tools in a message."""
    texts: list[str] = []
    calls: list[ProposedCall] = []
    results: list[tuple[str | None, Json]] = []
    parts = node.get("parts")
    if parts is None:
        content = node.get("content")
        parts = content if isinstance(content, list) else []
        if isinstance(content, str) and content:
            texts.append(content)
    for index, item in enumerate(list_at(parts, f"{where}.parts")):
        at = f"{where}.parts[{index}]"
        part = node_at({"type": "text", "content": item} if isinstance(item, str) else item, at)
        kind = part.get("type")
        if kind in {"tool_call", "tool_use"}:
            calls.append(_call(part, at))
        elif kind in {"tool_call_response", "tool_result"}:
            result = next((part[key] for key in ("response", "result", "content") if key in part), None)
            results.append((_text_or_none(part.get("id", part.get("tool_use_id"))), result))
        else:
            texts.append(text_of(part))
    for index, item in enumerate(list_at(node.get("tool_calls") or [], f"{where}.tool_calls")):
        calls.append(_call(node_at(item, f"{where}.tool_calls[{index}]"), f"{where}.tool_calls[{index}]"))
    return texts, calls, results


def _call(part: Node, where: str) -> ProposedCall:
    function = part.get("function")
    node = node_at(function, f"{where}.function") if isinstance(function, dict) else part
    name = node.get("name")
    if not isinstance(name, str) or not name:
        raise RecordingError(f"{where} is a tool call without a name")
    given = node.get("arguments", node.get("input"))
    arguments = parsed(given, f"{where}.arguments") if isinstance(given, str) and given.strip() else given or {}
    return ProposedCall(
        name=name, arguments=node_at(arguments, f"{where}.arguments"), call_id=_text_or_none(part.get("id"))
    )


def _text_or_none(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None
