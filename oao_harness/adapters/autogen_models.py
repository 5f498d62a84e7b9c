"""Governs AutoGen's chat completion clients where they ask a model."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from autogen_core.models._model_client import ChatCompletionClient
from autogen_core.models._types import CreateResult

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.framework_models import AnswerShape, Said, arguments_of, model_request, plain
from oao_harness.adapters.patching import Arguments, Leaf, Request, set_method
from oao_harness.adapters.requiring import require, require_version
from oao_harness.runtime.context import is_possible
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Call, Json, ModelCall, ProposedCall

__all__ = ["install", "install_cache"]

_DISTRIBUTION: Final = "autogen-core"
_PARAMETERS: Final = ("messages",)
_ROLES: Final = {"SystemMessage": "system", "UserMessage": "user", "AssistantMessage": "assistant"}
# They hand every request on to another client, and that one is governed.
_DELEGATES: Final = frozenset({"ChatCompletionCache", "ChatCompletionClientRecorder"})
# Of a client's own settings, what says nothing about the answer.
_NO_SETTING: Final = frozenset({"metadata", "model", "store", "stream_options", "user"})
_CACHE: Final = "autogen_ext.models.cache._chat_completion_cache"


def install() -> None:
    """Patch the leaves of all clients, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 0.7.5, or has no such leaves.
    """
    require_version(_DISTRIBUTION, "0.7.5")
    require(ChatCompletionClient, ("create", "create_stream"), _DISTRIBUTION)
    patch_family(
        ChatCompletionClient,
        (
            Leaf(name="create", kind="async", prepare=_prepare_model),
            Leaf(name="create_stream", kind="astream", prepare=_prepare_model),
        ),
        governs=lambda cls: not (cls.__name__ in _DELEGATES and cls.__module__.startswith("autogen_ext.")),
    )


def install_cache() -> None:
    """Switch off the cache of answers inside of runs: a hit is a call that nobody judged, counted or wrote."""
    cache = importlib.import_module(_CACHE).ChatCompletionCache
    require(cache, ("_check_cache",), "autogen-ext")

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def check(self: Any, *args: Any, **named: Any) -> Any:
            found, key = function(self, *args, **named)
            return (None if is_possible() else found), key

        return check

    set_method(cache, "_check_cache", wrap)


def _prepare_model(client: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    given: dict[str, Any] = {**dict(zip(_PARAMETERS, positional, strict=False)), **named}
    settings: Mapping[str, Any] = getattr(client, "_create_args", None) or {}
    extra: Mapping[str, Any] = given.get("extra_create_args") or {}
    call = ModelCall(
        name=str(extra.get("model") or settings.get("model") or type(client).__name__),
        messages=[node for message in given["messages"] for node in _message(message)],
        tools=[_tool(tool) for tool in given.get("tools") or ()],
        params=_params(given, {**settings, **extra}),
    )
    shape = AnswerShape(
        call, _read, dump=_dump, load=_load, is_last=_is_last, merge=lambda parts: parts[-1], split=_split
    )

    def swap(judged: Call) -> tuple[Any, Arguments]:
        return client, (positional, {**named, "extra_create_args": {**extra, "model": judged.name}})

    request = model_request(call, shape, client, arguments)
    return dataclasses.replace(request, swap=swap) if "model" in settings or "model" in extra else request


def _message(message: Any) -> Iterator[Mapping[str, Json]]:
    """Yield a message as a provider sees it: each result of a tool is one."""
    if message.type == "FunctionExecutionResultMessage":
        for result in message.content:
            yield {"role": "tool", "name": result.name, "call_id": result.call_id, "content": result.content}
        return
    node: dict[str, Json] = {"role": _ROLES.get(message.type, message.type)}
    if message.type == "UserMessage":
        node["name"] = message.source
    fields = cast("Mapping[str, Json]", plain(message))
    calls = message.type == "AssistantMessage" and not isinstance(message.content, str)
    node["calls" if calls else "content"] = fields["content"]
    if fields.get("thought"):
        node["thought"] = fields["thought"]
    yield node


def _tool(tool: Any) -> Mapping[str, Json]:
    return cast("Mapping[str, Json]", plain(tool if isinstance(tool, Mapping) else tool.schema))


def _params(given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Json]:
    params = cast("dict[str, Json]", plain({key: value for key, value in settings.items() if key not in _NO_SETTING}))
    choice, form = given.get("tool_choice", "auto"), given.get("json_output")
    if choice != "auto":
        params["tool_choice"] = choice if isinstance(choice, str) else choice.name
    if form:
        schema = getattr(form, "model_json_schema", None)
        params["json_output"] = plain(schema()) if schema is not None else True
    return dict(sorted(params.items()))


def _dump(value: Any) -> Json:
    return value if isinstance(value, str) else cast("Json", value.model_dump(mode="json", exclude_none=True))


def _load(value: Json) -> Any:
    return value if isinstance(value, str) else CreateResult.model_validate(value)


def _merge(chunks: list[Any]) -> Any:
    return chunks[-1]


def _split(result: Any) -> list[Any]:
    return [result.content, result] if isinstance(result.content, str) and result.content else [result]


def _is_last(chunk: Any) -> bool:
    return isinstance(chunk, CreateResult)


def _read(values: Sequence[Any]) -> Said:
    """Read a whole answer, or the last chunk of a stream: it is the whole answer."""
    last = values[-1] if values else ""
    if isinstance(last, str):
        return Said(usage=None, texts=values)
    calls = [] if isinstance(last.content, str) else last.content
    usage = read_usage(last)
    return Said(
        # Two zeros are what AutoGen says where the provider said nothing.
        usage=usage if usage is not None and usage.total_tokens else None,
        texts=[last.content if isinstance(last.content, str) else plain(last)],
        proposed=[
            ProposedCall(name=call.name, arguments=arguments_of(call.arguments), call_id=call.id) for call in calls
        ],
    )
