"""`guard`: puts the gate into a function's own code, so that every way to reach the function passes it.

A decorator guards a name; whoever holds the function itself, or registers it as another tool, goes around it. This
replaces `function.__code__`. What still goes around: digging the old code out of the new one.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar, cast, overload
from weakref import WeakSet

from oao_harness.adapters.governed import governed, is_governed, mark_governed
from oao_harness.errors import ConfigError
from oao_harness.runtime import gate
from oao_harness.runtime.context import Frame, frame, here
from oao_harness.runtime.reach import TOOL_MARK
from oao_harness.runtime.within import each_within, each_within_async
from oao_hookspecs import Call, Effect, Json, ToolCall

__all__ = ["guard"]

F = TypeVar("F", bound=Callable[..., Any])

_SENTINEL: Final = "the dispatcher of oao_harness.guard"
# Not an attribute alone: `functools.wraps` of a user would copy it.
_guarded: Final[WeakSet[types.FunctionType]] = WeakSet()
_entered: Final[ContextVar[Frame | None]] = ContextVar("oao_entered", default=None)
"""The governed call whose guarded body is running here; it covers one entry, not a recursion."""


@overload
def guard(function: F, /) -> F: ...
@overload
def guard(*, name: str | None = None, effect: Effect | None = None) -> Callable[[F], F]: ...
def guard(
    function: F | None = None, /, *, name: str | None = None, effect: Effect | None = None
) -> F | Callable[[F], F]:
    """Let every call of a function pass the gate as a tool call, whatever way the function is reached.

    Unlike `tool` it changes the function itself and returns it: the original object, `tool.func`, or the function
    registered as another tool pass the gate too, under the tool name given here. A call that comes from a governed
    tool of the same name is one call. Kind, signature, defaults and annotations stay; a generator can no longer be
    sent values. Outside of runs the function does what it did. A guarded function is not guarded again.

    Args:
        function: A function written in Python; for a method, the function in its class.
        name: Tool name; the function's name by default. Give the name under which an agent knows the tool.
        effect: What repeating a call does: `pure`, `idempotent` or `once`; `once` is never retried.

    Raises:
        ConfigError: This cannot be guarded: a builtin, a class, a bound method, a callable object, or a function that
            `tool` or `model` made.

    Example:
        ```python
        @guard
        def delete_account(user: str) -> str: ...
        ```
    """
    if function is None:
        return cast("Callable[[F], F]", functools.partial(guard, name=name, effect=effect))
    if isinstance(function, types.FunctionType) and function in _guarded:
        return function
    _guard(_require_function(function), name or function.__name__, effect)
    return function


def _require_function(function: object) -> types.FunctionType:
    if isinstance(function, types.FunctionType):
        if is_governed(function):
            raise ConfigError(
                f"guard({function.__qualname__}): it was made by @tool or @model; guard the function below it: "
                "@tool above @guard"
            )
        if function.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:
            raise ConfigError(f"guard({function.__qualname__}): a generator-based coroutine; write it as async def")
        return function
    if isinstance(function, types.MethodType):
        hint = f"guard the function in the class: @guard above def {function.__name__}"
    elif hasattr(function, "func"):
        hint = "guard its function: guard(tool.func)"
    else:
        hint = "mark it with @oao_harness.tool, or wrap it in a function and guard that"
    raise ConfigError(f"guard({function!r:.100}): only a function written in Python has code to guard; {hint}")


def _guard(function: types.FunctionType, name: str, effect: Effect | None) -> None:
    code = function.__code__
    body = types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    body.__kwdefaults__ = function.__kwdefaults__  # pyright: ignore[reportAttributeAccessIssue]
    body.__annotations__, body.__module__ = function.__annotations__, function.__module__
    body.__qualname__, body.__doc__ = function.__qualname__, function.__doc__
    trampoline = _trampoline(code, _dispatcher(body, name, effect))
    function.__code__ = trampoline
    mark_governed(function)
    setattr(function, TOOL_MARK, name)
    _guarded.add(function)


def _dispatcher(body: types.FunctionType, name: str, effect: Effect | None) -> Callable[..., Any]:
    """Return what the trampoline calls: it lets a governed call of this tool in, and makes one of any other."""
    entered = _entering(body)
    is_method = body.__code__.co_argcount > 0 and body.__code__.co_varnames[0] == "self"

    def describe(arguments: Mapping[str, Json]) -> Call:
        return ToolCall(name=name, arguments=arguments, effect=effect)

    def gated(function: Callable[..., Any]) -> Callable[..., Any]:
        return governed(function, describe, lambda _call: gate.ValueShape())

    if not is_method:
        gate_it = gated(entered)

        def dispatch(*args: Any, **kwargs: Any) -> Any:
            return (entered if _is_governed_as(name) else gate_it)(*args, **kwargs)

        return dispatch

    def dispatch_method(instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        # Bound first: the instance is no argument that a policy could judge or a journal keep.
        method = types.MethodType(entered, instance)
        return (method if _is_governed_as(name) else gated(method))(*args, **kwargs)

    return dispatch_method


def _is_governed_as(name: str) -> bool:
    """Return True where a governed call of this tool is about to run its body."""
    inside, run = frame.get(), here.get()
    if inside is None or inside is _entered.get() or inside.call.kind != "tool" or inside.call.name != name:
        return False
    return run is None or inside.run is run


def _entering(body: types.FunctionType) -> Callable[..., Any]:
    """Return a function like `body` inside of which the governed call is used up: a recursion is a new one."""
    if inspect.isasyncgenfunction(body):

        async def astream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            source = each_within_async(_entered, frame.get(), lambda: body(*args, **kwargs))
            try:
                async for item in source:
                    yield item
            finally:
                await source.aclose()

        return functools.update_wrapper(astream, body)
    if inspect.isgeneratorfunction(body):

        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            yield from each_within(_entered, frame.get(), lambda: body(*args, **kwargs))

        return functools.update_wrapper(stream, body)
    if inspect.iscoroutinefunction(body):

        async def acall(*args: Any, **kwargs: Any) -> Any:
            token = _entered.set(frame.get())
            try:
                return await body(*args, **kwargs)
            finally:
                _entered.reset(token)

        return functools.update_wrapper(acall, body)

    def call(*args: Any, **kwargs: Any) -> Any:
        token = _entered.set(frame.get())
        try:
            return body(*args, **kwargs)
        finally:
            _entered.reset(token)

    return functools.update_wrapper(call, body)


_FORWARDS: Final = {
    "sync": "return {dispatch}({given})",
    "async": "return await {dispatch}({given})",
    "stream": "return (yield from {dispatch}({given}))",
    "astream": "async for {item} in {dispatch}({given}): yield {item}",
}


def _trampoline(code: types.CodeType, dispatch: Callable[..., Any]) -> types.CodeType:
    """Return code with the parameters of `code` that hands all of them to `dispatch`.

    Compiled from source, because bytecode differs from one Python to the next; the dispatcher then takes the place of
    a constant. It has the same parameters and free variables, so defaults and closure of the function still fit.
    """
    taken = {*code.co_varnames, *code.co_freevars}
    item, held = (_unused(word, taken) for word in ("_item", "_dispatch"))
    kind = _kind(code)
    positional, positional_only = code.co_varnames[: code.co_argcount], code.co_posonlyargcount
    named = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    rest = list(code.co_varnames[code.co_argcount + code.co_kwonlyargcount :])
    starred = f"*{rest.pop(0)}" if code.co_flags & inspect.CO_VARARGS else ""
    double = f"**{rest.pop(0)}" if code.co_flags & inspect.CO_VARKEYWORDS else ""
    parameters = [
        *positional[:positional_only],
        *(["/"] if positional_only else []),
        *positional[positional_only:],
        *([starred or "*"] if starred or named else []),
        *named,
        *([double] if double else []),
    ]
    given = [*positional, *([starred] if starred else []), *(f"{one}={one}" for one in named)]
    given += [double] if double else []
    forward = _FORWARDS[kind].format(dispatch=held, given=", ".join(given), item=item)
    source = (
        f"def make({', '.join(code.co_freevars)}):\n"
        f"  {'async ' if kind in {'async', 'astream'} else ''}def trampoline({', '.join(parameters)}):\n"
        f"    {held} = {_SENTINEL!r}\n"
        f"    if not {held}: ({''.join(f'{one}, ' for one in code.co_freevars)})\n"  # names them as free variables
        f"    {forward}\n"
        f"  return trampoline\n"
    )
    scope: dict[str, Any] = {}
    exec(compile(source, code.co_filename, "exec"), scope)  # noqa: S102 - of identifiers that are already in use
    made: types.CodeType = scope["make"](*code.co_freevars).__code__
    return made.replace(
        co_consts=tuple(dispatch if constant == _SENTINEL else constant for constant in made.co_consts),
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        co_firstlineno=code.co_firstlineno,
    )


def _kind(code: types.CodeType) -> str:
    if code.co_flags & inspect.CO_ASYNC_GENERATOR:
        return "astream"
    if code.co_flags & inspect.CO_COROUTINE:
        return "async"
    return "stream" if code.co_flags & inspect.CO_GENERATOR else "sync"


def _unused(word: str, taken: set[str]) -> str:
    while word in taken:
        word += "_"
    return word
