"""Governs Pydantic AI: its models where they are asked, its toolsets and output functions where their work is done."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final, cast

from pydantic_ai.agent import AbstractAgent
from pydantic_ai.embeddings import EmbeddingModel, WrapperEmbeddingModel
from pydantic_ai.exceptions import ModelRetry
from pydantic_ai.models import Model, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.toolsets import AbstractToolset, CombinedToolset, WrapperToolset
from pydantic_ai.toolsets._dynamic import DynamicToolset

from oao_harness.adapters.families import Wrapped, patch_family
from oao_harness.adapters.framework_models import asked_once
from oao_harness.adapters.framework_tools import governed_function, tool_request
from oao_harness.adapters.patching import Arguments, Request, govern, is_wrapper, made_here
from oao_harness.adapters.pydantic_ai_models import (
    prepare_compaction,
    prepare_embedding,
    prepare_request,
    streamed,
)
from oao_harness.adapters.requiring import require, require_version
from oao_harness.errors import FrameworkError
from oao_harness.runtime.context import current, is_possible
from oao_harness.runtime.outside import refuse_or_note

__all__ = ["ADAPTER", "PydanticAIAdapter", "install"]

_DISTRIBUTION: Final = "pydantic-ai-slim"
# They hand a request on to other models of the family, and are no model themselves.
_ROUTERS: Final = (FallbackModel, WrapperModel)
_TOOL: Final = ("name", "tool_args", "ctx", "tool")


def install() -> None:
    """Patch the leaves of all models and toolsets, present and to come, and of output functions; once.

    Raises:
        FrameworkError: The installed version is older than 2.68, or has no such leaves.
    """
    require_version(_DISTRIBUTION, "2.68")
    require(Model, ("request", "request_stream", "compact_messages", "batch_create"), _DISTRIBUTION)
    require(StreamedResponse, ("__aiter__", "get"), _DISTRIBUTION)
    require(AbstractToolset, ("call_tool",), _DISTRIBUTION)
    output = sys.modules["pydantic_ai._output"]
    for name, wrap in (("execute_output_function", _output_function), ("execute_choice_action", _choice_action)):
        if not hasattr(output, name):
            raise FrameworkError(f"pydantic_ai._output has no {name}, which oao governs; install another version of it")
        if not is_wrapper(getattr(output, name)):
            setattr(output, name, wrap(getattr(output, name)))
    patch_family(
        Model,
        (
            Wrapped(name="request", wrap=functools.partial(asked_once, kind="async", prepare=prepare_request)),
            Wrapped(name="request_stream", wrap=streamed),
            Wrapped(
                name="compact_messages", wrap=functools.partial(asked_once, kind="async", prepare=prepare_compaction)
            ),
            Wrapped(name="batch_create", wrap=_batch),
        ),
        governs=lambda cls: not issubclass(cls, _ROUTERS),
    )
    patch_family(
        EmbeddingModel,
        (Wrapped(name="embed", wrap=functools.partial(asked_once, kind="async", prepare=prepare_embedding)),),
        governs=lambda cls: not issubclass(cls, WrapperEmbeddingModel),
    )
    patch_family(AbstractToolset, (Wrapped(name="call_tool", wrap=_toolset),))


def _batch(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def batch_create(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_possible():
            what = f"a batch of requests was sent to model {self.model_name!r}: their answers come beside the gate"
            refuse_or_note("batch", what, "ask the model directly")
        return await function(self, *args, **kwargs)

    return batch_create


# Toolsets


class _Cover:
    """What a toolset that has passed the gate may hand on, once, to one of those it holds."""

    __slots__ = ("call_id", "used")

    def __init__(self, call_id: str | None) -> None:
        self.call_id, self.used = call_id, False

    def take(self, call_id: str | None) -> bool:
        """Return True where a call is the one that passed the gate."""
        taken = not self.used and self.call_id == call_id
        self.used = self.used or taken
        return taken


_cover: Final[ContextVar[_Cover | None]] = ContextVar("oao_pydantic_ai_cover", default=None)


def _toolset(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `call_tool` that passes the gate: under the name that the model knows, and with what the hooks left."""
    governed = govern(function, "async", _prepare_tool)

    @functools.wraps(function)
    async def call_tool(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_possible():
            return await function(self, *args, **kwargs)
        call_id = _named(args, kwargs)["ctx"].tool_call_id
        outer = _cover.get()
        is_handed = outer is not None and outer.take(call_id)
        hands_on = isinstance(self, (WrapperToolset, CombinedToolset, DynamicToolset))
        token = _cover.set(_Cover(call_id) if hands_on else None)
        try:
            return await (function if is_handed else governed)(self, *args, **kwargs)
        finally:
            _cover.reset(token)

    return call_tool


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(_TOOL, args, strict=False)), **kwargs}


def _prepare_tool(_toolset: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    given = _named(*arguments)
    return tool_request(
        given["name"],
        given["tool_args"],
        lambda changed: ((), {**given, "tool_args": changed}),
        call_id=given["ctx"].tool_call_id,
    )


# Output functions


def _output_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an `execute_output_function` whose function passes the gate."""

    @functools.wraps(function)
    async def execute_output_function(function_schema: Any, *, run_context: Any, args: Any, **kwargs: Any) -> Any:
        if not is_possible() or current() is None:
            return await function(function_schema, run_context=run_context, args=args, **kwargs)
        if run_context.partial_output:
            # A stream that is not over: how often it would run depends on how fast the answer comes.
            raise ModelRetry("inside a governed run, output functions run with the final answer alone")
        return await function(_Schema(function_schema), run_context=run_context, args=args, **kwargs)

    made_here(execute_output_function)
    return execute_output_function


class _Schema:
    """An output function's schema, of which only `call` is used."""

    __slots__ = ("call",)

    def __init__(self, schema: Any) -> None:
        self.call = governed_function(schema.call, "async", _prepare_output, schema.function)


def _prepare_output(output: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    (args, context), _ = arguments
    return tool_request(
        _name_of(output), args, lambda changed: ((changed, context), {}), call_id=getattr(context, "tool_call_id", None)
    )


def _choice_action(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an `execute_choice_action` whose action, picked by the model, passes the gate."""

    @functools.wraps(function)
    async def execute_choice_action(action: Callable[[], Any]) -> Any:
        async def act() -> Any:
            return await function(action)

        return await (governed_function(act, "async", _prepare_choice, action) if is_possible() else act)()

    made_here(execute_choice_action)
    return execute_choice_action


def _prepare_choice(action: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    return tool_request(_name_of(action), {}, lambda _changed: arguments)


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


class PydanticAIAdapter:
    """Drives an agent of Pydantic AI by `run_sync(task)` or `run(task)`; the output is `result.output`."""

    name = "pydantic-ai"

    def matches(self, agent: object) -> bool:
        """Return True for an agent of Pydantic AI."""
        return isinstance(agent, AbstractAgent)

    def sees(self, agent: object) -> bool:
        """Return True: models and tools are governed where they are defined."""
        del agent
        return True

    def is_async(self, agent: object) -> bool:
        """Return True: Pydantic AI is async."""
        del agent
        return True

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return cast("Any", agent).run_sync(task)

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return await cast("Any", agent).run(task)

    def output(self, result: object) -> object:
        """Return the output."""
        return cast("Any", result).output


ADAPTER: Final = PydanticAIAdapter()
