"""Governs the models of smolagents where they are asked: `generate` and `generate_stream` of every one of them."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from smolagents.models import (
    ChatMessage,
    ChatMessageStreamDelta,
    ChatMessageToolCallFunction,
    ChatMessageToolCallStreamDelta,
    Model,
    agglomerate_stream_deltas,
    get_tool_json_schema,
)
from smolagents.monitoring import TokenUsage

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.framework_models import AnswerShape, Said, arguments_of, model_request, plain
from oao_harness.adapters.patching import Arguments, Leaf, Request, set_method
from oao_harness.adapters.requiring import require, require_version
from oao_harness.journal.codec import encode, holds_opaque
from oao_harness.runtime.context import is_possible
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Json, ModelCall, ProposedCall

__all__ = ["ANSWER_TOOL", "install"]

ANSWER_TOOL: Final = "final_answer"
"""The name of the tool by which a model gives its answer: that is no call of a tool."""
_PARAMETERS: Final = ("messages", "stop_sequences", "response_format", "tools_to_call_from")
# Keys, and what says nothing about the answer.
_NO_SETTINGS: Final = frozenset({"api_key", "token", "headers", "extra_headers", "timeout"})

# What a model said before it asked for a tool is nothing; told to it again where it was asked for a stream.
_EMPTY: Final = (None, "", [{"type": "text", "text": ""}])


def install() -> None:
    """Patch the leaves of all models, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 1.26, or has no such leaves.
    """
    require_version("smolagents", "1.26")
    require(Model, ("generate", "parse_tool_calls", "__call__"), "smolagents")
    leaves = (
        Leaf(name="generate", kind="sync", prepare=_prepare),
        Leaf(name="generate_stream", kind="stream", prepare=_prepare),
    )
    patch_family(Model, leaves, (Leaf(name="__call__", kind="sync", prepare=_prepare),))
    set_method(Model, "parse_tool_calls", _identified)


def _identified(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what reads calls of tools out of a text, so that their ids are the same each time: the model is told them.

    Where the model's API names the calls itself, they have ids already.
    """

    @functools.wraps(function)
    def parse(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
        has_ids = bool(message.tool_calls)
        parsed = function(self, message, *args, **kwargs)
        if not has_ids and is_possible():
            written = hashlib.sha256(str(message.content).encode()).hexdigest()[:12]
            for index, call in enumerate(parsed.tool_calls):
                call.id = f"call_{written}_{index}"
        return parsed

    return parse


def _prepare(model: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    given: dict[str, Any] = {**dict(zip(_PARAMETERS, positional, strict=False)), **named}
    tools = given.pop("tools_to_call_from", None) or ()
    call = ModelCall(
        name=str(getattr(model, "model_id", None) or type(model).__name__),
        messages=[
            found for message in given.pop("messages", ()) if (found := _message(message))["content"] not in _EMPTY
        ],
        tools=[cast("Mapping[str, Json]", plain(get_tool_json_schema(tool)["function"])) for tool in tools],
        params=_params({**given, **getattr(model, "kwargs", {})}),
    )
    shape = AnswerShape(call, _read, dump=_dump, load=_load, merge=agglomerate_stream_deltas, split=_split)
    return model_request(call, shape, model, arguments, name_field="model_id")


def _message(message: Any) -> Mapping[str, Json]:
    found = message if isinstance(message, Mapping) else {"role": message.role, "content": message.content}
    content = found.get("content")
    if isinstance(content, list):
        content = [_part(cast("Mapping[str, Any]", part)) for part in content]
    return {"role": str(getattr(found["role"], "value", found["role"])), "content": plain(content)}


def _part(part: Mapping[str, Any]) -> Mapping[str, Any]:
    image = part.get("image")
    if image is None or isinstance(image, str):
        return part
    # A picture is known by what is on it.
    pixels = getattr(image, "tobytes", lambda: repr(type(image)).encode())()
    return {**part, "image": f"sha256:{hashlib.sha256(pixels).hexdigest()}"}


def _params(given: Mapping[str, Any]) -> dict[str, Json]:
    found = {name: plain(value) for name, value in given.items() if value is not None and name not in _NO_SETTINGS}
    return {name: value for name, value in sorted(found.items()) if holds_opaque(value) is None}


# Answers: `{"content": ..., "tool_calls": [...], "token_usage": {...}}`, with a role where they are whole


def _dump(answer: Any) -> Json:
    node: dict[str, Any] = {"content": encode(answer.content)}
    if isinstance(answer, ChatMessage):
        node["role"] = str(getattr(answer.role, "value", answer.role))
    if answer.tool_calls is not None:
        node["tool_calls"] = [_dump_call(call) for call in answer.tool_calls]
    if answer.token_usage is not None:
        usage = answer.token_usage
        node["token_usage"] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return node


def _dump_call(call: Any) -> Json:
    node: dict[str, Any] = {"id": call.id, "type": call.type}
    if getattr(call, "index", None) is not None:
        node["index"] = call.index
    if call.function is not None:
        node["function"] = {"name": call.function.name, "arguments": encode(call.function.arguments)}
    return node


def _load(value: Json) -> Any:
    node = cast("dict[str, Any]", value)
    usage = node.get("token_usage")
    tokens = None if usage is None else TokenUsage(**usage)
    if "role" in node:
        return ChatMessage.from_dict(dict(node), token_usage=tokens)
    calls = node.get("tool_calls")
    deltas = None if calls is None else [_load_delta(call) for call in calls]
    return ChatMessageStreamDelta(content=node["content"], tool_calls=deltas, token_usage=tokens)


def _load_delta(node: Mapping[str, Any]) -> Any:
    function = node.get("function")
    return ChatMessageToolCallStreamDelta(
        index=node.get("index"),
        id=node["id"],
        type=node["type"],
        function=None if function is None else ChatMessageToolCallFunction(**function),
    )


def _split(answer: Any) -> Sequence[Any]:
    calls = [
        ChatMessageToolCallStreamDelta(index=index, id=call.id, type=call.type, function=call.function)
        for index, call in enumerate(answer.tool_calls or ())
    ]
    return [
        ChatMessageStreamDelta(content=answer.content, tool_calls=calls or None, token_usage=answer.token_usage),
    ]


def _read(answers: Sequence[Any]) -> Said:
    whole = answers[0] if answers and isinstance(answers[0], ChatMessage) else agglomerate_stream_deltas([*answers])
    calls = list(whole.tool_calls or ())
    return Said(
        usage=read_usage(whole.token_usage),
        texts=[encode(whole.content), *(str(call.function.arguments) for call in calls)],
        proposed=[
            ProposedCall(name=call.function.name, arguments=arguments_of(call.function.arguments), call_id=call.id)
            for call in calls
            if call.function.name != ANSWER_TOOL
        ],
    )
