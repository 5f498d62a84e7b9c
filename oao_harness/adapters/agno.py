"""Governs agno: its models where they are asked, its functions where their entry point is called.

The entry point is inside of agno's hooks, caches and handling of errors, so that those are kept.
"""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

from agno.models.base import Model
from agno.models.message import Message
from agno.models.response import ModelResponse
from agno.run.base import BaseRunOutputEvent
from agno.run.workflow import workflow_run_output_event_from_dict
from agno.tools.function import FunctionCall

from oao_harness.adapters.families import Wrapped, patch_family
from oao_harness.adapters.framework_models import AnswerShape, Said, arguments_of, asked_once, model_request, plain
from oao_harness.adapters.framework_tools import governed_function, tool_request
from oao_harness.adapters.patching import Arguments, Kind, Request, set_method
from oao_harness.adapters.requiring import require, require_version
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime.context import is_possible
from oao_harness.runtime.gate import Answer, ValueShape
from oao_harness.runtime.usage import read_usage
from oao_hookspecs import Json, ModelCall, ProposedCall

__all__ = ["ADAPTER", "AgnoAdapter", "install"]

_DISTRIBUTION: Final = "agno"
_ASKED: Final[tuple[tuple[str, Kind], ...]] = (
    ("invoke", "sync"),
    ("ainvoke", "async"),
    ("invoke_stream", "stream"),
    ("ainvoke_stream", "astream"),
)
# What of a message a provider is sent.
_SENT: Final = ("role", "content", "name", "tool_call_id", "tool_calls", "audio", "images", "videos", "files")
# Settings of a model that its provider is sent, as most of them are called.
_SETTINGS: Final = (
    "extra_body",
    "frequency_penalty",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "presence_penalty",
    "reasoning",
    "reasoning_effort",
    "request_params",
    "seed",
    "stop",
    "stop_sequences",
    "temperature",
    "thinking",
    "top_k",
    "top_p",
)
_AGENTS: Final = (
    ("agno.agent.agent", "Agent"),
    ("agno.team.team", "Team"),
    ("agno.workflow.workflow", "Workflow"),
)


def install() -> None:
    """Patch the leaves of all models, present and to come, and of function calls; once.

    Raises:
        FrameworkError: The installed version is older than 3.1, or has no such leaves.
    """
    require_version(_DISTRIBUTION, "3.1")
    require(Model, [name for name, _ in _ASKED], _DISTRIBUTION)
    require(FunctionCall, ("execute", "aexecute", "function", "arguments", "call_id"), _DISTRIBUTION)
    patch_family(
        Model,
        [
            Wrapped(name=name, wrap=functools.partial(asked_once, kind=kind, prepare=_prepare_model))
            for name, kind in _ASKED
        ],
    )
    set_method(FunctionCall, "execute", _executing)
    set_method(FunctionCall, "aexecute", _executing_async)


# Models


def _prepare_model(model: Any, function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    given = {**dict(zip(_parameters(function), positional, strict=False)), **named}
    settings = {name: found for name in _SETTINGS if (found := getattr(model, name, None)) not in (None, {}, [])}
    for name in ("response_format", "tool_choice"):
        if given.get(name) is not None:
            settings[name] = given[name]
    call = ModelCall(
        name=str(model.id),
        messages=[_message(message) for message in given["messages"]],
        tools=[cast("Mapping[str, Json]", plain(tool)) for tool in given.get("tools") or ()],
        params=dict(sorted((name, _schema(value)) for name, value in settings.items())),
    )
    shape = AnswerShape(call, functools.partial(_read, model), dump=_dump, load=_load)
    return model_request(call, shape, model, arguments, name_field="id")


@functools.cache
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)[1:]


def _message(message: Message) -> Mapping[str, Json]:
    found = {name: getattr(message, name, None) for name in _SENT}
    if message.compressed_content is not None:
        found["content"] = message.compressed_content
    return cast("Mapping[str, Json]", plain({name: value for name, value in found.items() if value is not None}))


def _schema(value: object) -> Json:
    """Return a setting as JSON; a class of data is what its provider is sent, a schema."""
    describe = getattr(value, "model_json_schema", None)
    return plain(describe() if isinstance(value, type) and describe is not None else value)


def _dump(response: Any) -> Json:
    if not isinstance(response, ModelResponse):
        return encode(response)
    found = {key: value for key, value in response.to_dict().items() if value not in (None, [], {})}
    return {"response": encode(found)}


def _load(node: Json) -> Any:
    if isinstance(node, Mapping) and "response" in node:
        return ModelResponse.from_dict(cast("dict[str, Any]", decode(node["response"])))
    return decode(node)


def _read(model: Any, values: Sequence[Any]) -> Said:
    responses = [value for value in values if isinstance(value, ModelResponse)]
    usages = (read_usage(response.response_usage) for response in reversed(responses))
    asked = [call for response in responses for call in response.tool_calls or ()]
    return Said(
        usage=next((usage for usage in usages if usage is not None), None),
        texts=[str(response.content) for response in responses if response.content],
        proposed=[
            ProposedCall(
                name=str(call["function"].get("name")),
                arguments=arguments_of(call["function"].get("arguments")),
                call_id=call.get("id") or call.get("call_id"),
            )
            for call in (model.parse_tool_calls(asked) if len(values) > 1 else asked)
            if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping)
        ],
    )


# Functions


class _Pieces(ValueShape):
    """What a tool yields: texts, and events of the agents that it runs."""

    def load_chunks(self, value: Json) -> list[Any]:
        """Return the pieces."""
        return [_piece_of(node) for node in cast("Sequence[Json]", value)]

    def snapshot(self, chunk: Any) -> Json:
        """Return a piece as JSON: an event in agno's own form."""
        if isinstance(chunk, BaseRunOutputEvent):
            return {"event": encode({key: found for key, found in chunk.to_dict().items() if found is not None})}
        return encode(chunk)

    def is_last(self, chunk: Any) -> bool:
        """Return False: nobody knows before the end."""
        del chunk
        return False

    def join(self, snapshots: list[Json], chunks: list[Any], *, partial: bool) -> Answer:
        """Return all pieces as JSON."""
        del chunks, partial
        return Answer(value=snapshots)


def _piece_of(node: Json) -> Any:
    if isinstance(node, Mapping) and "event" in node:
        return workflow_run_output_event_from_dict(cast("dict[str, Any]", decode(node["event"])))
    return decode(node)


def _executing(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def execute(self: Any) -> Any:
        with _governed(self):
            return function(self)

    return execute


def _executing_async(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def aexecute(self: Any) -> Any:
        with _governed(self):
            return await function(self)

    return aexecute


@contextmanager
def _governed(call: Any) -> Iterator[None]:
    """Put a function in place of the call's whose entry point passes the gate: others may be calling the same one."""
    function = call.function
    if not is_possible() or function.entrypoint is None:
        yield
        return
    kind = _kind_of(function.entrypoint)
    shape = _Pieces() if kind in {"stream", "astream"} else ValueShape()
    entry = governed_function(function.entrypoint, kind, functools.partial(_prepare_tool, shape), call)
    call.function = function.model_copy()
    call.function.entrypoint = entry
    try:
        yield
    finally:
        call.function = function


def _kind_of(entrypoint: Callable[..., Any]) -> Kind:
    if inspect.isasyncgenfunction(entrypoint):
        return "astream"
    if inspect.iscoroutinefunction(entrypoint):
        return "async"
    # Pydantic's check of the arguments hides what a function is.
    own = inspect.unwrap(entrypoint)
    return "astream" if inspect.isasyncgenfunction(own) else "stream" if inspect.isgeneratorfunction(own) else "sync"


def _prepare_tool(
    shape: Any, call: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None
) -> Request:
    positional, named = arguments
    asked = call.arguments or {}
    given = {name: value for name, value in named.items() if name in asked}
    injected = {name: value for name, value in named.items() if name not in asked}
    return tool_request(
        call.function.name,
        given,
        lambda changed: (positional, {**injected, **changed}),
        call_id=call.call_id,
        shape=shape,
    )


class AgnoAdapter:
    """Drives agents, teams and workflows of agno by `run` and `arun`; the output is `content`."""

    name = "agno"

    def matches(self, agent: object) -> bool:
        """Return True for an agent, a team or a workflow that runs in this process."""
        known = (getattr(sys.modules.get(module), name, None) for module, name in _AGENTS)
        return any(cls is not None and isinstance(agent, cls) for cls in known)

    def sees(self, agent: object) -> bool:
        """Return True: models and functions are governed where they are defined."""
        del agent
        return True

    def is_async(self, agent: object) -> bool:
        """Return False: agno has a sync way of its own."""
        del agent
        return False

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return cast("Any", agent).run(task)

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return await cast("Any", agent).arun(task)

    def output(self, result: object) -> object:
        """Return the content."""
        return cast("Any", result).content


ADAPTER: Final = AgnoAdapter()
