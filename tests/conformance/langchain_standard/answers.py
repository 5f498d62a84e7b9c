"""Answers of a model server that does what a request asks for, in its simplest form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_oao.testing import Reply, TextReply, ToolCall, ToolCallReply

__all__ = ["answer"]

_TEXT = "Here is what you asked for, in a few words."


def answer(body: dict[str, Any]) -> Reply:
    """Return JSON where a format is asked for, a tool call where one is due, else words.

    Args:
        body: A request to `/v1/chat/completions` or `/v1/responses`.
    """
    sent = str(body.get("messages") or body.get("input"))
    tokens: dict[str, Any] = {"input_tokens": 5 + len(sent) // 4, "output_tokens": 12}
    schema = _format_of(body)
    if schema is not None:
        return TextReply(text=json.dumps(_sample(schema, schema)), **tokens)
    call = _due_call(body)
    if call is not None:
        return ToolCallReply(calls=(call,), **tokens)
    return TextReply(text="good day to you" if "Say good day." in sent else _TEXT, **tokens)


def _format_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    asked = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    if asked.get("type") == "json_schema":
        schema: Mapping[str, Any] = (asked.get("json_schema") or asked)["schema"]
        return schema
    if asked.get("type") == "json_object":
        return {"type": "object", "properties": {"setup": {"type": "string"}, "punchline": {"type": "string"}}}
    return None


def _due_call(body: Mapping[str, Any]) -> ToolCall | None:
    offered = [tool.get("function") or tool for tool in body.get("tools") or ()]
    items: Sequence[Mapping[str, Any]] = body.get("messages") or body.get("input") or ()
    if not offered or (items and (items[-1].get("role") == "tool" or "output" in items[-1])):
        return None
    choice = body.get("tool_choice")
    wanted = (choice.get("function") or choice).get("name") if isinstance(choice, Mapping) else None
    tool = next((tool for tool in offered if tool["name"] == wanted), offered[0])
    parameters = tool.get("parameters") or {}
    return ToolCall(name=tool["name"], arguments=_sample(parameters, parameters))


def _sample(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """Return the simplest value that a JSON schema allows."""
    if "$ref" in schema:
        _, place, name = schema["$ref"].split("/")
        return _sample(root[place][name], root)
    if "enum" in schema or "const" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    if options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return _sample(options[0], root)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: _sample(inner, root) for name, inner in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [_sample(schema.get("items") or {"type": "string"}, root)]
    return {"integer": 3, "number": 1.5, "boolean": True, "null": None}.get(kind, "你好, cats")
