"""What the adapters of frameworks share for tools: their calls on the way to the gate, and functions that pass it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final, cast

from oao_harness.adapters.patching import (
    Arguments,
    Kind,
    Prepare,
    Request,
    cleared_function,
    govern,
    is_wrapper,
    made_here,
)
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime import gate
from oao_harness.runtime.context import is_possible
from oao_hookspecs import Call, Effect, Json, ToolCall

__all__ = ["BodyGuard", "governed_function", "kind_of", "named_arguments", "tool_request"]


class _Values(gate.ValueShape):
    """What a tool returns or, chunk by chunk, yields: plain values."""

    def snapshot(self, chunk: Any) -> Json:
        """Encode a chunk."""
        return encode(chunk)

    def is_last(self, chunk: Any) -> bool:
        """Return False: nobody knows which one is the last."""
        del chunk
        return False

    def join(self, snapshots: list[Json], chunks: list[Any], *, partial: bool) -> gate.Answer:
        """Return the chunks as they were."""
        del chunks, partial
        return gate.Answer(value=cast("Json", snapshots))


_VALUES: Final = _Values()


def tool_request(
    name: str,
    arguments: Mapping[str, object],
    again: Callable[[dict[str, Any]], Arguments],
    *,
    call_id: str | None = None,
    scope: str = "",
    effect: Effect | None = None,
    shape: gate.Shape = _VALUES,
) -> Request:
    """Return a tool call on its way to the gate.

    Args:
        name: Name of the tool.
        arguments: By parameter name, without what the framework injects.
        again: Makes the method's arguments of those that a policy modified.
        call_id: The id that a model gave to the call.
        scope: Where in the agent the call was made.
        effect: What repeating the call does, where the framework knows.
        shape: How the result is journaled and served.
    """
    call = ToolCall(
        name=name,
        arguments=cast("Mapping[str, Json]", encode(dict(arguments))),
        call_id=call_id,
        scope=scope,
        effect=effect,
    )

    def modified(judged: Call) -> Arguments:
        return again(cast("dict[str, Any]", decode(cast("ToolCall", judged).arguments)))

    return Request(call=call, shape=shape, arguments=modified)


def governed_function(function: Callable[..., Any], kind: Kind, prepare: Prepare, owner: object) -> Callable[..., Any]:
    """Return a function like `function` whose calls pass the gate inside of a run.

    Args:
        function: The body, without an instance as its first argument.
        kind: How it returns.
        prepare: Turns a call into a request; is handed `owner` as the instance.
        owner: The tool that the function is the body of.
    """
    governed = govern(cleared_function(function, kind), kind, prepare)

    if kind == "astream":

        @functools.wraps(function)
        async def astream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            async for chunk in governed(owner, *args, **kwargs):
                yield chunk

        made_here(astream)
        return astream

    if kind == "stream":

        @functools.wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            yield from governed(owner, *args, **kwargs)

        made_here(stream)
        return stream

    if kind == "async":

        @functools.wraps(function)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            return await governed(owner, *args, **kwargs)

        made_here(acall)
        return acall

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return governed(owner, *args, **kwargs)

    made_here(call)
    return call


def kind_of(function: Callable[..., Any]) -> Kind:
    """Return how a function returns what it does."""
    if inspect.isasyncgenfunction(function):
        return "astream"
    if inspect.isgeneratorfunction(function):
        return "stream"
    return "async" if inspect.iscoroutinefunction(function) else "sync"


def named_arguments(function: Callable[..., Any], arguments: Arguments) -> dict[str, Any]:
    """Return the arguments of a call by the names of the parameters that they are for.

    Args:
        function: Without an instance as its first parameter.
        arguments: Of the call.
    """
    positional, named = arguments
    if not positional:
        return dict(named)
    names = (name for name, one in inspect.signature(function).parameters.items() if one.kind is not one.VAR_POSITIONAL)
    return {**dict(zip(names, positional, strict=False)), **named}


class BodyGuard:
    """A field of tools that holds a user's function: who reads it inside of a run gets one that passes the gate.

    A descriptor of the class, so that tools are governed too that were made before oao was imported.

    Args:
        name: Of the field.
        prepare: Turns a call of the function into a request; is handed the tool as the instance.
        governs: False for a tool whose function is none of the user's.
    """

    __slots__ = ("_governs", "_name", "_prepare")

    def __init__(self, name: str, prepare: Prepare, governs: Callable[[Any], bool] = lambda tool: True) -> None:
        self._name, self._prepare, self._governs = name, prepare, governs

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            raise AttributeError(self._name)
        fields = cast("dict[str, Any]", vars(instance))
        if self._name not in fields:
            raise AttributeError(self._name)
        function: Any = fields[self._name]
        if not is_possible() or function is None or not self._governs(instance):
            return function
        return governed_function(function, kind_of(function), self._prepare, instance)

    def __set__(self, instance: Any, value: Any) -> None:
        # Who hands on what he read shall not have it wrapped once more; maybe he bound it first.
        function: Any = getattr(value, "__func__", value)
        if is_wrapper(function):
            own = function.__wrapped__
            value = own if function is value else own.__get__(value.__self__)
        vars(instance)[self._name] = value
