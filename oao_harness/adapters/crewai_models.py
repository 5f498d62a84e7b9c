"""Governs CrewAI's LLMs where they ask a model: the native providers, the fallback over LiteLLM, and a user's own."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, cast

from crewai.llms.base_llm import BaseLLM
from crewai.utilities.string_utils import sanitize_tool_name
from pydantic import BaseModel

from oao_harness.adapters.families import Wrapped, patch_family
from oao_harness.adapters.framework_models import AnswerShape, Said, arguments_of, model_request, plain
from oao_harness.adapters.framework_tools import governed_function, tool_request
from oao_harness.adapters.patching import Arguments, Kind, Request, govern, is_wrapper, set_method
from oao_harness.adapters.requiring import require, require_version
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime.context import is_possible
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Json, ModelCall, ProposedCall

__all__ = ["install"]

_DISTRIBUTION: Final = "crewai"
_PARAMETERS: Final = (
    "messages",
    "tools",
    "callbacks",
    "available_functions",
    "from_task",
    "from_agent",
    "response_model",
)
# What of an LLM's fields changes the answer; the others are about the transport, or are secrets.
_SETTINGS: Final = (
    "frequency_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_tokens",
    "n",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "thinking",
    "top_k",
    "top_p",
)
_MESSAGE: Final = ("role", "content", "name", "tool_calls", "tool_call_id")

_spent: Final[ContextVar[list[Any] | None]] = ContextVar("oao_crewai_spent", default=None)


@dataclass(frozen=True, slots=True)
class _Answered:
    """What an LLM returned, and what it reported beside that."""

    value: Any
    usage: Mapping[str, Any] | None
    live: bool = True


def install() -> None:
    """Patch the leaves of all LLMs, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 1.15, or has no such leaves.
    """
    require_version(_DISTRIBUTION, "1.15")
    require(BaseLLM, ("call", "acall", "_track_token_usage_internal", "_emit_stream_chunk_event"), _DISTRIBUTION)
    patch_family(
        BaseLLM,
        (
            Wrapped(name="call", wrap=_govern_call),
            Wrapped(name="acall", wrap=_govern_acall),
            Wrapped(name="_track_token_usage_internal", wrap=_noting),
        ),
    )
    set_method(BaseLLM, "_track_token_usage_internal", _noting)


def _noting(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def track(self: Any, usage: Any, *args: Any, **named: Any) -> Any:
        spent = _spent.get()
        if spent is not None:
            spent.append(usage)
            # What this calls of the base class is the same report.
            token = _spent.set(None)
            try:
                return function(self, usage, *args, **named)
            finally:
                _spent.reset(token)
        return function(self, usage, *args, **named)

    return track


def _govern_call(function: Callable[..., Any]) -> Callable[..., Any]:
    def ask(self: Any, *args: Any, **named: Any) -> _Answered:
        spent: list[Any] = []
        token = _spent.set(spent)
        try:
            value = function(self, *args, **_with_governed_functions(named))
        finally:
            _spent.reset(token)
        return _Answered(value, _sum(spent))

    governed = govern(ask, "sync", _prepare_model)

    @functools.wraps(function)
    def call(self: Any, /, *args: Any, **named: Any) -> Any:
        if not is_possible():
            return function(self, *args, **named)
        return _handed_out(self, governed(self, **_named(args, named)), named)

    return call


def _govern_acall(function: Callable[..., Any]) -> Callable[..., Any]:
    async def ask(self: Any, *args: Any, **named: Any) -> _Answered:
        spent: list[Any] = []
        token = _spent.set(spent)
        try:
            value = await function(self, *args, **_with_governed_functions(named))
        finally:
            _spent.reset(token)
        return _Answered(value, _sum(spent))

    governed = govern(ask, "async", _prepare_model)

    @functools.wraps(function)
    async def acall(self: Any, /, *args: Any, **named: Any) -> Any:
        if not is_possible():
            return await function(self, *args, **named)
        return _handed_out(self, await governed(self, **_named(args, named)), named)

    return acall


def _named(args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(_PARAMETERS, args, strict=False)), **named}


def _handed_out(llm: Any, answered: _Answered, named: Mapping[str, Any]) -> Any:
    """Return the value; where it comes from a recording, with what CrewAI hears of a live one."""
    if not answered.live:
        if answered.usage is not None:
            llm._track_token_usage_internal(dict(answered.usage))
        if isinstance(answered.value, str) and llm._effective_stream:
            told = {key: named.get(key) for key in ("from_task", "from_agent")}
            llm._emit_stream_chunk_event(chunk=answered.value, **told)
    return answered.value


def _sum(spent: Sequence[Any]) -> Mapping[str, Any] | None:
    """Return the tokens of one call, which may have been several requests."""
    counted = [usage for usage in (plain(one) for one in spent) if isinstance(usage, Mapping)]
    if len(counted) < 2:
        return counted[0] if counted else None
    total: dict[str, Any] = {}
    for usage in counted:
        for key, value in usage.items():
            if isinstance(value, int) and not isinstance(value, bool):
                total[key] = total.get(key, 0) + value
    return total


def _prepare_model(llm: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    given = arguments[1]
    asked = given["messages"]
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    call = ModelCall(
        name=str(llm.model),
        messages=[_message(message) for message in messages],
        tools=[_tool(tool) for tool in given.get("tools") or ()],
        params=_params(llm, given),
    )
    read = functools.partial(_read, _authored(given))
    return model_request(call, AnswerShape(call, read, dump=_dump, load=_load), llm, arguments, name_field="model")


def _authored(given: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the names of tools as their authors wrote them, by those that models are told."""
    holders = [given.get("from_task"), given.get("from_agent")]
    tools = [tool for holder in holders for tool in getattr(holder, "tools", None) or ()]
    return {sanitize_tool_name(tool.name): tool.name for tool in tools if isinstance(getattr(tool, "name", None), str)}


def _message(message: Any) -> Mapping[str, Json]:
    fields = message if isinstance(message, Mapping) else vars(message)
    return {key: plain(fields[key]) for key in _MESSAGE if fields.get(key) is not None}


def _tool(tool: Any) -> Mapping[str, Json]:
    if isinstance(tool, Mapping):
        inner = tool.get("function")
        return cast("Mapping[str, Json]", plain(inner if isinstance(inner, Mapping) else tool))
    return {"name": str(getattr(tool, "name", type(tool).__name__))}


def _params(llm: Any, given: Mapping[str, Any]) -> dict[str, Json]:
    found = {key: getattr(llm, key, None) for key in _SETTINGS}
    found.update(getattr(llm, "additional_params", None) or {})
    params = {key: _setting(value) for key, value in found.items() if value is not None and value != []}
    if given.get("response_model") is not None:
        params["response_model"] = _setting(given["response_model"])
    return dict(sorted(params.items()))


def _setting(value: Any) -> Json:
    if isinstance(value, type) and issubclass(value, BaseModel):
        return plain(value.model_json_schema())
    return plain(value)


def _dump(answered: _Answered) -> Json:
    node: dict[str, Json] = {"value": encode(answered.value)}
    if answered.usage is not None:
        node["usage"] = plain(answered.usage)
    return node


def _load(value: Json) -> _Answered:
    node = cast("Mapping[str, Any]", value)
    return _Answered(decode(node["value"]), node.get("usage"), live=False)


def _read(authored: Mapping[str, str], values: Sequence[Any]) -> Said:
    answered: _Answered = values[0]
    value = answered.value
    calls = [found for item in value for found in _proposed(item, authored)] if isinstance(value, list) else []
    texts = [value if isinstance(value, str) else plain(value)]
    return Said(usage=read_usage(answered.usage), texts=texts, proposed=calls)


def _proposed(item: Any, authored: Mapping[str, str]) -> Sequence[ProposedCall]:
    """Return the tool call in one item of an answer, in the spelling of whichever provider."""
    function = _of(item, "function") or _of(item, "function_call") or item
    name = _of(function, "name")
    if not isinstance(name, str):
        return ()
    arguments, call_id = _first(function, ("arguments", "input", "args")), _first(item, ("id", "toolUseId", "call_id"))
    return (ProposedCall(name=authored.get(name, name), arguments=arguments_of(arguments), call_id=call_id),)


def _first(item: Any, keys: Sequence[str]) -> Any:
    return next((found for key in keys if (found := _of(item, key)) is not None), None)


def _of(item: Any, key: str) -> Any:
    return item.get(key) if isinstance(item, Mapping) else getattr(item, key, None)


# Functions that an LLM calls itself


def _with_governed_functions(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments whose functions pass the gate: an LLM that is handed some calls them where it is asked."""
    functions = named.get("available_functions")
    if not functions:
        return {**named}
    return {**named, "available_functions": {name: _governed(name, one) for name, one in functions.items()}}


def _governed(name: str, function: Any) -> Any:
    owner = getattr(function, "__self__", None)
    module = str(getattr(function, "__module__", ""))
    # A tool's own method is governed; CrewAI's own functions do no more than to shape an answer.
    if is_wrapper(function) or hasattr(owner, "args_schema") or module.partition(".")[0] == "crewai":
        return function
    return governed_function(function, _kind(function), _prepare_function, _Named(name))


def _kind(function: Any) -> Kind:
    return "async" if inspect.iscoroutinefunction(function) else "sync"


class _Named:
    """What a function is the body of: a name."""

    def __init__(self, name: str) -> None:
        self.name = name


def _prepare_function(owner: Any, _function: Callable[..., Any], arguments: Arguments, _id: str | None) -> Request:
    positional, named = arguments

    def again(changed: dict[str, Any]) -> Arguments:
        return positional, changed

    return tool_request(owner.name, named, again)
