"""Governs the chat clients of Microsoft's agent-framework where they ask a model."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, cast

from agent_framework._clients import BaseChatClient
from agent_framework._types import ChatResponse, ChatResponseUpdate, Content, Message, ResponseStream

from oao_harness.adapters.families import Wrapped, patch_family
from oao_harness.adapters.framework_models import AnswerShape, Said, arguments_of, model_request, plain
from oao_harness.adapters.patching import Arguments, Request, govern
from oao_harness.adapters.requiring import require, require_version
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Call, Json, ModelCall, ProposedCall, Usage

__all__ = ["content_of", "install"]

# Made anew by each process, or about the transport; the id of a call is `call_id`, and is the model's.
_NO_CONTENT: Final = frozenset({"additional_properties", "annotations", "id", "raw_representation"})
# What else of the options says nothing about the answer.
_NO_OPTION: Final = frozenset({"instructions", "metadata", "model", "response_format", "store", "tools", "user"})


def install() -> None:
    """Patch the leaf of all chat clients, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 1.23, or has no such leaf.
    """
    require_version("agent-framework-core", "1.23")
    require(BaseChatClient, ("_inner_get_response", "_finalize_response_updates"), "agent-framework-core")
    patch_family(
        BaseChatClient,
        (Wrapped(name="_inner_get_response", wrap=_govern_client),),
    )


def _govern_client(function: Callable[..., Any]) -> Callable[..., Any]:
    """Govern a method that returns an awaitable, or a stream where it is asked for one."""

    async def whole(self: Any, **named: Any) -> Any:
        return await function(self, **named)

    async def updates(self: Any, **named: Any) -> AsyncIterator[Any]:
        made = named.pop("_oao_made")
        stream = function(self, **named)
        if not isinstance(stream, ResponseStream):
            stream = await stream
        made.append(stream)
        async for update in stream:
            yield update

    ask, read = govern(whole, "async", _prepare_model), govern(updates, "astream", _prepare_model)

    @functools.wraps(function)
    def wrapper(self: Any, /, *args: Any, **named: Any) -> Any:
        named = {**dict(zip(("messages", "stream", "options"), args, strict=False)), **named}
        if not named.get("stream"):
            return ask(self, **named)
        made: list[Any] = []
        format_ = (named.get("options") or {}).get("response_format")

        def finalize(found: Sequence[Any]) -> Any:
            own = made[-1]._finalizer if made else None
            return own(found) if own is not None else self._finalize_response_updates(found, response_format=format_)

        return ResponseStream(read(self, **named, _oao_made=made), finalizer=finalize)

    return wrapper


def _prepare_model(client: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    options: Mapping[str, Any] = arguments[1].get("options") or {}
    call = ModelCall(
        name=str(options.get("model") or getattr(client, "model", None) or type(client).__name__),
        messages=_messages(options.get("instructions"), arguments[1]["messages"]),
        tools=[_tool(tool) for tool in options.get("tools") or ()],
        params=_params(options),
    )
    shape = AnswerShape(call, _read, dump=_dump, load=_load, merge=ChatResponse.from_updates, split=_split)

    def swap(judged: Call) -> tuple[Any, Arguments]:
        other = {**options, "model": judged.name}
        return client, (arguments[0], {**arguments[1], "options": other})

    return dataclasses.replace(model_request(call, shape, client, arguments), swap=swap)


def _messages(instructions: object, messages: Sequence[Message]) -> list[Mapping[str, Json]]:
    texts = [instructions] if isinstance(instructions, str) else instructions or ()
    described: list[Mapping[str, Json]] = [{"role": "system", "content": str(text)} for text in cast("Any", texts)]
    for message in messages:
        node: dict[str, Json] = {"role": str(message.role)}
        if message.author_name:
            node["name"] = message.author_name
        contents = message.contents
        is_text = all(content.type == "text" for content in contents)
        node["content"] = message.text if is_text else [content_of(content.to_dict()) for content in contents]
        described.append(node)
    return described


def content_of(node: Any) -> Json:
    """Return a content as a provider sees it."""
    if isinstance(node, Mapping):
        is_content = isinstance(node.get("type"), str)
        return {key: content_of(value) for key, value in node.items() if not (is_content and key in _NO_CONTENT)}
    if isinstance(node, list):
        return [content_of(item) for item in node]
    return encode(node)


def _tool(tool: Any) -> Mapping[str, Json]:
    parameters = getattr(tool, "parameters", None)
    if callable(parameters):
        # Some clients write that key into the tool's own schema when they ask: not the same in a replay.
        schema = {key: value for key, value in cast("Any", parameters)().items() if key != "additionalProperties"}
        return {"name": tool.name, "description": tool.description, "parameters": plain(schema)}
    node = plain(tool)
    return node if isinstance(node, Mapping) else {"name": str(getattr(tool, "name", type(tool).__name__))}


def _params(options: Mapping[str, Any]) -> dict[str, Json]:
    found = {key: value for key, value in options.items() if key not in _NO_OPTION and not key.startswith("_")}
    params = cast("dict[str, Json]", plain(found))
    format_ = options.get("response_format")
    if format_ is not None:
        schema = getattr(format_, "model_json_schema", None)
        params["response_format"] = plain(schema() if schema is not None else format_)
    return dict(sorted(params.items()))


def _dump(value: Any) -> Json:
    return encode(value.to_dict())


def _load(value: Json) -> Any:
    node = cast("dict[str, Any]", decode(value))
    return (ChatResponse if "messages" in node else ChatResponseUpdate).from_dict(node)


def _split(response: Any) -> list[Any]:
    """Return a whole answer as a stream of its messages, the tokens in the last one."""
    updates = [
        ChatResponseUpdate(
            contents=message.contents,
            role=message.role,
            message_id=message.message_id,
            response_id=response.response_id,
            conversation_id=response.conversation_id,
            model=response.model,
        )
        for message in response.messages
    ]
    if updates:
        updates[-1].finish_reason = response.finish_reason
        if response.usage_details is not None:
            updates[-1].contents = [*updates[-1].contents, Content.from_usage(response.usage_details)]
    return updates


def _read(values: Sequence[Any]) -> Said:
    whole = values[0] if values and isinstance(values[0], ChatResponse) else _merged(values)
    contents = [content for message in whole.messages for content in message.contents]
    return Said(
        usage=_usage(whole.usage_details),
        texts=[content_of(content.to_dict()) for content in contents],
        proposed=[
            ProposedCall(name=content.name, arguments=arguments_of(content.arguments), call_id=content.call_id)
            for content in contents
            if content.type == "function_call" and not getattr(content, "hosted", None)
        ],
    )


def _merged(updates: Sequence[Any]) -> Any:
    # Of copies: what the framework merges it may change.
    return ChatResponse.from_updates([ChatResponseUpdate.from_dict(update.to_dict()) for update in updates])


def _usage(details: Mapping[str, Any] | None) -> Usage | None:
    names = (
        ("input_tokens", "input_token_count"),
        ("output_tokens", "output_token_count"),
        (
            "total_tokens",
            "total_token_count",
        ),
    )
    return None if not details else read_usage({ours: details.get(theirs) for ours, theirs in names})
