"""What a response on a provider's wire says: the tokens it cost and the tool calls it asks for. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from oao_harness.adapters.wire import events_of
from oao_harness.runtime.gate import Answer
from oao_harness.runtime.usage import read_usage, usage_or_estimate
from oao_hookspecs import Json, ModelCall, ProposedCall, Usage

__all__ = ["answer_of", "message_of"]

_Node = Mapping[str, Json]

# Anthropic counts what it read from or wrote into its cache beside `input_tokens`.
_CACHED: Final = ("cache_creation_input_tokens", "cache_read_input_tokens")
# Where the texts of an answer are, in all of these protocols.
_TEXTS: Final = frozenset(
    {"arguments", "completion", "content", "delta", "partial_json", "reasoning_content", "refusal", "text", "thinking"}
)
_SAID_IN: Final = frozenset({"choices", "completion", "content", "content_block", "delta", "output"})


def answer_of(call: ModelCall, value: _Node) -> Answer:
    """Return a response as the gate takes it: tokens as reported, else estimated; tool calls of JSON and of events.

    Args:
        call: The request.
        value: From `wire.response_to_json`.
    """
    nodes = _nodes(value)
    reported = _usage(nodes)
    said: list[Json] = []
    if reported is None or reported.output_tokens == 0:
        said = [text for node in nodes for text in _said(node)]
    return Answer(value=value, usage=usage_or_estimate(call, reported, said), proposed=_proposed(nodes))


def message_of(value: _Node) -> Mapping[str, Json]:
    """Return what a response says as one message for people: `content`, and `calls` that it asks for.

    Args:
        value: From `wire.response_to_json`.
    """
    nodes = _nodes(value)
    calls: list[Json] = [{"name": call.name, "args": call.arguments} for call in _proposed(nodes)]
    return {"content": "".join(text for node in nodes for text in _said(node)), "calls": calls}


def _nodes(value: _Node) -> list[_Node]:
    body = value.get("body")
    return [body] if isinstance(body, Mapping) else events_of(value)


def _usage(nodes: Sequence[_Node]) -> Usage | None:
    """Return the tokens that were reported last; the later reports of a stream hold only what changed."""
    merged: dict[str, Json] = {}
    for node in nodes:
        for holder in (node, node.get("message"), node.get("response")):
            reported = holder.get("usage") if isinstance(holder, Mapping) else None
            if isinstance(reported, Mapping):
                merged.update({key: count for key, count in reported.items() if count is not None})
    found = read_usage(merged) if merged else None
    if found is None or "total_tokens" in merged:
        return found
    cached = sum(count for key in _CACHED if isinstance(count := merged.get(key), int))
    return Usage(input_tokens=found.input_tokens + cached, output_tokens=found.output_tokens)


def _said(value: Json, key: str = "") -> Iterator[str]:
    """Yield the texts of an answer. What a stream says twice, first in pieces and then whole, counts once."""
    if isinstance(value, str):
        if key in _TEXTS:
            yield value
    elif isinstance(value, Mapping):
        if str(value.get("type", "")).endswith(".done") or isinstance(value.get("response"), Mapping):
            return
        for name, item in value.items():
            if key or name in _SAID_IN:
                yield from _said(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _said(item, key)


class _Parts:
    """Tool calls whose arguments come in pieces."""

    def __init__(self) -> None:
        self._calls: dict[tuple[Json, ...], dict[str, str]] = {}

    def add(self, where: tuple[Json, ...], *, name: Json = None, call_id: Json = None, piece: Json = None) -> None:
        call = self._calls.setdefault(where, {"name": "", "id": "", "text": ""})
        call["name"] = name if isinstance(name, str) and name else call["name"]
        call["id"] = call_id if isinstance(call_id, str) and call_id else call["id"]
        call["text"] += piece if isinstance(piece, str) else ""

    def knows(self, where: tuple[Json, ...]) -> bool:
        return where in self._calls

    def proposed(self) -> list[ProposedCall]:
        return [
            ProposedCall(name=call["name"], arguments=_arguments(call["text"]), call_id=call["id"] or None)
            for call in self._calls.values()
            if call["name"]
        ]


def _proposed(nodes: Sequence[_Node]) -> Sequence[ProposedCall]:
    parts = _Parts()
    for number, node in enumerate(nodes):
        for place, choice in enumerate(_mappings(node.get("choices"))):
            _add_choice(parts, choice, place)
        for place, block in enumerate(_mappings(node.get("content"))):
            _add_block(parts, block, (number, place))
        for item in _mappings(node.get("output")):
            _add_item(parts, item)
        _add_event(parts, node)
    return parts.proposed()


def _add_choice(parts: _Parts, choice: _Node, place: int) -> None:
    said = choice.get("message") or choice.get("delta")
    asked = _mappings(said.get("tool_calls")) if isinstance(said, Mapping) else []
    for position, call in enumerate(asked):
        function = call.get("function")
        if isinstance(function, Mapping):
            where = (choice.get("index", place), call.get("index", position))
            parts.add(where, name=function.get("name"), call_id=call.get("id"), piece=function.get("arguments"))


def _add_block(parts: _Parts, block: _Node, where: tuple[Json, ...]) -> None:
    """Add a block of Anthropic's; in a stream its input is empty, and comes in pieces."""
    if block.get("type") == "tool_use":
        given = block.get("input")
        piece = json.dumps(given) if given else ""
        parts.add(where, name=block.get("name"), call_id=block.get("id"), piece=piece)


def _add_item(parts: _Parts, item: _Node) -> None:
    """Add an item of OpenAI's Responses; in a stream it comes when it is done, and once more with all others."""
    where: tuple[Json, ...] = ("item", item.get("call_id"))
    if item.get("type") == "function_call" and not parts.knows(where):
        parts.add(where, name=item.get("name"), call_id=item.get("call_id"), piece=item.get("arguments"))


def _add_event(parts: _Parts, event: _Node) -> None:
    kind, where = event.get("type"), ("block", event.get("index"))
    if kind == "content_block_start" and isinstance(block := event.get("content_block"), Mapping):
        _add_block(parts, block, where)
    elif kind == "content_block_delta" and parts.knows(where) and isinstance(delta := event.get("delta"), Mapping):
        parts.add(where, piece=delta.get("partial_json"))
    elif kind == "response.output_item.done" and isinstance(item := event.get("item"), Mapping):
        _add_item(parts, item)


def _mappings(value: Json) -> list[_Node]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _arguments(text: str) -> _Node:
    try:
        found: object = json.loads(text or "{}")
    except ValueError:
        return {}
    return cast("_Node", found) if isinstance(found, Mapping) else {}
