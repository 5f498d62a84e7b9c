"""`@tool` and `@model`: how plain Python functions pass the gate. Outside of a run they are the plain functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, cast, overload

from oao_harness.errors import ConfigError
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime import gate
from oao_harness.runtime.context import current
from oao_harness.runtime.judging import require_unchanged
from oao_harness.runtime.reach import TOOL_MARK
from oao_harness.runtime.usage import estimate_input_tokens, estimate_tokens, read_usage
from oao_hookspecs import Call, Effect, Json, ModelCall, ProposedCall, ToolCall, Usage

__all__ = ["governed", "is_governed", "mark_governed", "model", "tool"]

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "__oao_governed__"
_VALUES: Final = gate.ValueShape()


def is_governed(value: object) -> bool:
    """Return True for a function that `@tool` or `@model` made, or that `guard` changed."""
    return getattr(value, _MARK, False) is True


def mark_governed(function: Callable[..., Any]) -> None:
    """Mark a function as one whose calls pass the gate."""
    setattr(function, _MARK, True)


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(*, name: str | None = None, effect: Effect | None = None) -> Callable[[F], F]: ...
def tool(
    function: F | None = None, /, *, name: str | None = None, effect: Effect | None = None
) -> F | Callable[[F], F]:
    """Let every call of a function pass the gate as a tool call.

    Sync and async functions and generators keep their kind and their signature. The function itself is not changed.

    Args:
        function: The tool's body.
        name: Tool name; the function's name by default.
        effect: What repeating a call does: `pure`, `idempotent` or `once`; `once` is never retried.

    Example:
        ```python
        @tool(effect="once")
        def refund(order: str, amount: float) -> str: ...
        ```
    """
    if function is None:
        return cast("Callable[[F], F]", functools.partial(tool, name=name, effect=effect))
    if is_governed(function):
        return function
    called = name or str(getattr(function, "__name__", type(function).__name__))

    def describe(arguments: Mapping[str, Json]) -> Call:
        return ToolCall(name=called, arguments=arguments, effect=effect)

    made = governed(function, describe, lambda _call: _VALUES)
    setattr(made, TOOL_MARK, called)
    return made


@overload
def model(function: F, /) -> F: ...
@overload
def model(*, name: str | None = None) -> Callable[[F], F]: ...
def model(function: F | None = None, /, *, name: str | None = None) -> F | Callable[[F], F]:
    """Let every call of a function pass the gate as a model call.

    The first parameter is the conversation: a text, or a list of messages. Tokens are read from what the function
    returns (`usage`, `usage_metadata` and their like); where it says nothing they are estimated and flagged.

    Args:
        function: Sends the request and returns the answer.
        name: Model id; the function's name by default.
    """
    if function is None:
        return cast("Callable[[F], F]", functools.partial(model, name=name))
    if is_governed(function):
        return function
    called = name or str(getattr(function, "__name__", type(function).__name__))

    def describe(arguments: Mapping[str, Json]) -> Call:
        values = list(arguments.items())
        messages: Sequence[Mapping[str, Json]] = _as_messages(values[0][1]) if values else []
        params = dict(values[1:])
        tools = params.pop("tools", None)
        offered = cast("Sequence[Mapping[str, Json]]", tools) if _is_mappings(tools) else ()
        if tools is not None and not offered:
            params["tools"] = tools
        return ModelCall(name=called, messages=messages, tools=offered, params=params)

    return governed(function, describe, lambda call: _ModelShape(cast("ModelCall", call)))


def _as_messages(prompt: Json) -> Sequence[Mapping[str, Json]]:
    if _is_mappings(prompt):
        return cast("Sequence[Mapping[str, Json]]", prompt)
    return [{"role": "user", "content": prompt}]


def _is_mappings(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


class _ModelShape(gate.ValueShape):
    """Answers of a `@model` function: plain values with tokens in them."""

    def __init__(self, call: ModelCall) -> None:
        self._call = call

    def dump(self, value: Any) -> gate.Answer:
        encoded = encode(value)
        # A stream reports its tokens in the last chunk.
        last = cast("list[object]", value)[-1:] if isinstance(value, list) else [cast("object", value)]
        usage = read_usage(last[0]) if last else None
        if usage is None:
            usage = Usage(
                input_tokens=estimate_input_tokens(self._call),
                output_tokens=estimate_tokens([encoded]),
                estimated=True,
            )
        return gate.Answer(value=encoded, usage=usage, proposed=_proposed(encoded))


def _proposed(answer: Json) -> Sequence[ProposedCall]:
    calls = answer.get("tool_calls") if isinstance(answer, Mapping) else None
    if not isinstance(calls, list):
        return ()
    proposed: list[ProposedCall] = []
    for item in calls:
        if isinstance(item, Mapping) and isinstance(item.get("name"), str):
            arguments = item.get("args", item.get("arguments"))
            call_id = item.get("id")
            proposed.append(
                ProposedCall(
                    name=cast("str", item["name"]),
                    arguments=arguments if isinstance(arguments, Mapping) else {},
                    call_id=call_id if isinstance(call_id, str) else None,
                )
            )
    return proposed


def governed(function: F, describe: Callable[[Mapping[str, Json]], Call], shape_of: Callable[[Call], gate.Shape]) -> F:
    """Return a function like `function` whose calls pass the gate.

    Args:
        function: Sync or async, generator or not; it stays that.
        describe: Makes the call of the encoded arguments, by parameter name.
        shape_of: How the result of a call is journaled and served.
    """
    bind = _binder(function)

    def prepare(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, Callable[[Call], Any]]:
        call = describe(cast("Mapping[str, Json]", encode(bind(args, kwargs))))

        def act(judged: Call) -> Any:
            if judged is call:
                require_unchanged(call, lambda: describe(cast("Mapping[str, Json]", encode(bind(args, kwargs)))))
                return function(*args, **kwargs)
            if not isinstance(judged, ToolCall):
                raise ConfigError(f"model {judged.name!r}: a policy modified the request; only tool arguments can be")
            return function(**cast("dict[str, Any]", decode(judged.arguments)))

        return call, act

    async def async_stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        run = current()
        if run is None:
            async for item in function(*args, **kwargs):
                yield item
            return
        call, act = prepare(args, kwargs)
        async for item in gate.astream(run, call, act, shape_of(call)):
            yield item

    def sync_stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
        run = current()
        if run is None:
            yield from function(*args, **kwargs)
            return
        call, act = prepare(args, kwargs)
        yield from gate.stream(run, call, act, shape_of(call))

    async def async_call(*args: Any, **kwargs: Any) -> Any:
        run = current()
        if run is None:
            return await function(*args, **kwargs)
        call, act = prepare(args, kwargs)
        return await gate.acall(run, call, cast("Callable[[Call], Awaitable[Any]]", act), shape_of(call))

    def sync_call(*args: Any, **kwargs: Any) -> Any:
        run = current()
        if run is None:
            return function(*args, **kwargs)
        call, act = prepare(args, kwargs)
        return gate.call(run, call, act, shape_of(call))

    body: Any = getattr(function, "__call__", function) if not inspect.isroutine(function) else function  # noqa: B004
    wrapper: Callable[..., Any] = sync_call
    if inspect.isasyncgenfunction(body):
        wrapper = async_stream
    elif inspect.isgeneratorfunction(body):
        wrapper = sync_stream
    elif inspect.iscoroutinefunction(body):
        wrapper = async_call
    functools.update_wrapper(wrapper, function)
    mark_governed(wrapper)
    return cast("F", wrapper)


def _binder(function: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
    """Return what names the arguments of a call by their parameters, so that `f(1)` and `f(x=1)` are the same."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # builtins without a signature
        return lambda args, kwargs: {**{f"arg{i}": arg for i, arg in enumerate(args)}, **kwargs}
    plain = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]

    def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if len(args) <= len(plain):
            return {**dict(zip(plain, args, strict=False)), **kwargs}
        bound = signature.bind_partial(*args, **kwargs)
        return dict(bound.arguments)

    return bind
