"""Governs LangChain's tools: the methods and functions of every subclass in which their work is done."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, cast
from weakref import WeakKeyDictionary

from langchain_core.tools.base import BaseTool
from langchain_core.tools.simple import Tool
from langchain_core.tools.structured import StructuredTool

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.langchain_messages import register_values
from oao_harness.adapters.langchain_scope import ReadGuard, scope
from oao_harness.adapters.patching import (
    Arguments,
    Kind,
    Leaf,
    Mark,
    Request,
    govern,
    mark,
    require,
    set_method,
)
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime import gate
from oao_harness.runtime.context import is_possible
from oao_hookspecs import Call, Json, ToolCall

__all__ = ["install"]

_VALUES: Final = gate.ValueShape()
_MANAGERS: Final = frozenset({"run_manager", "callbacks"})


def install() -> None:
    """Patch the leaves of all tools, present and to come; once.

    Raises:
        FrameworkError: The installed LangChain has no such leaves.
    """
    require(BaseTool, ("_run", "_arun", "run", "arun", "tool_call_schema"), "langchain-core")
    for cls in (StructuredTool, Tool):
        require(cls, ("func", "coroutine"), "langchain-core")
    register_values()
    for cls in (StructuredTool, Tool):
        for name in ("func", "coroutine"):
            if not isinstance(vars(cls).get(name), _FunctionGuard):
                type.__setattr__(cls, name, _FunctionGuard(name))
    set_method(BaseTool, "run", lambda function: _entering(function, "sync"))
    set_method(BaseTool, "arun", lambda function: _entering(function, "async"))
    patch_family(
        BaseTool,
        (Leaf(name="_run", kind="sync", prepare=_prepare), Leaf(name="_arun", kind="async", prepare=_prepare)),
        (
            Leaf(name="run", kind="sync", prepare=_prepare_entry),
            Leaf(name="invoke", kind="sync", prepare=_prepare_entry),
            Leaf(name="arun", kind="async", prepare=_prepare_entry),
            Leaf(name="ainvoke", kind="async", prepare=_prepare_entry),
        ),
    )


def _entering(function: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    """Wrap `BaseTool.run`: a tool called inside of its own body is a new call; remember the model's id of it."""

    def enters(tool: BaseTool, tool_call_id: str | None) -> Mark | None:
        outer = mark.get()
        if outer is not None and outer.instance is tool and outer.is_entry:
            return None
        return Mark(tool, call_id=tool_call_id)

    if kind == "async":

        @functools.wraps(function)
        async def arun(self: BaseTool, *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
            entered = enters(self, tool_call_id)
            if entered is None:
                return await function(self, *args, tool_call_id=tool_call_id, **kwargs)
            token = mark.set(entered)
            try:
                return await function(self, *args, tool_call_id=tool_call_id, **kwargs)
            finally:
                mark.reset(token)

        return arun

    @functools.wraps(function)
    def run(self: BaseTool, *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
        entered = enters(self, tool_call_id)
        if entered is None:
            return function(self, *args, tool_call_id=tool_call_id, **kwargs)
        token = mark.set(entered)
        try:
            return function(self, *args, tool_call_id=tool_call_id, **kwargs)
        finally:
            mark.reset(token)

    return run


class _FunctionGuard(ReadGuard):
    """`tool.func` and `tool.coroutine`: the same object outside of runs; inside, a function that passes the gate."""

    __slots__ = ()

    def guarded(self, instance: Any, value: Any) -> Any:
        if value is None or not is_possible():
            return value
        outer = mark.get()
        is_async = self._name == "coroutine"
        if outer is not None and outer.instance is instance and outer.entered:
            return _body(value, is_async)
        return _governed_function(instance, value, "async" if is_async else "sync")


def _body(function: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
    """Return a user's function that begins with a clean slate: what it calls is governed anew, itself included."""
    try:
        return _cached_body(function, is_async)
    except TypeError:  # a callable object that cannot be hashed
        return _make_body(function, is_async)


def _make_body(function: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
    if is_async:

        async def abody(*args: Any, **kwargs: Any) -> Any:
            token = mark.set(None)
            try:
                return await function(*args, **kwargs)
            finally:
                mark.reset(token)

        return _like(abody, function)

    def body(*args: Any, **kwargs: Any) -> Any:
        token = mark.set(None)
        try:
            return function(*args, **kwargs)
        finally:
            mark.reset(token)

    return _like(body, function)


# LangChain reads `self.func` four times for one call.
_cached_body: Final = functools.lru_cache(maxsize=1024)(_make_body)


def _like(wrapper: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    functools.update_wrapper(wrapper, function)
    if not inspect.isroutine(function):
        # A partial or a callable object: LangChain looks for `config: RunnableConfig` in the annotations.
        inner = function.func if isinstance(function, functools.partial) else getattr(function, "__call__")  # noqa: B004, B009
        wrapper.__annotations__ = dict(getattr(inner, "__annotations__", {}))
    return wrapper


def _governed_function(tool: Any, function: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    def prepare(instance: Any, _method: Callable[..., Any], arguments: Arguments, call_id: str | None) -> Request:
        return _prepare(instance, function, arguments, call_id)

    if kind == "async":

        async def amethod(_tool: Any, *args: Any, **kwargs: Any) -> Any:
            return await _body(function, True)(*args, **kwargs)

        agoverned = govern(amethod, kind, prepare)

        async def acall(*args: Any, **kwargs: Any) -> Any:
            return await agoverned(tool, *args, **kwargs)

        return _like(acall, function)

    def method(_tool: Any, *args: Any, **kwargs: Any) -> Any:
        return _body(function, False)(*args, **kwargs)

    governed = govern(method, kind, prepare)

    def call(*args: Any, **kwargs: Any) -> Any:
        return governed(tool, *args, **kwargs)

    return _like(call, function)


def _prepare(tool: Any, function: Callable[..., Any], arguments: Arguments, call_id: str | None) -> Request:
    """Describe a call of a tool's body: its arguments by name, without what LangChain injects."""
    positional, named = arguments
    hidden = _hidden(tool, function)
    names = _positional_names(tool, function, len(positional))
    shown = {**dict(zip(names, positional, strict=True)), **{k: v for k, v in named.items() if k not in hidden}}
    call = ToolCall(
        name=tool.name,
        arguments=cast("Mapping[str, Json]", encode(shown)),
        call_id=call_id,
        scope=scope(),
        defaulted=() if call_id is None else _defaulted(tool, function, shown),
    )

    def modified(judged: Call) -> Arguments:
        given = cast("dict[str, Any]", decode(cast("ToolCall", judged).arguments))
        first: list[Any] = []
        for name in names:
            if name not in given:
                break
            first.append(given.pop(name))
        return tuple(first), {**{k: v for k, v in named.items() if k in hidden}, **given}

    return Request(call=call, shape=_VALUES, arguments=modified)


def _prepare_entry(tool: Any, _function: Callable[..., Any], arguments: Arguments, call_id: str | None) -> Request:
    """Describe a call of an overridden public method: `run(tool_input, ...)`, `invoke(input, ...)`."""
    positional, named = arguments
    field = "tool_input" if "tool_input" in named else "input"
    given: Any = positional[0] if positional else named.get(field)
    is_model_call = isinstance(given, Mapping) and cast("Mapping[str, Any]", given).get("type") == "tool_call"
    if is_model_call:
        wrapped = cast("dict[str, Any]", given)
        shown, call_id = wrapped["args"], wrapped.get("id")
    else:
        shown = cast("Any", given) if isinstance(given, Mapping) else {"tool_input": given}
    hidden = _hidden(tool, cast("Any", type(tool))._run)
    visible = {k: v for k, v in cast("Mapping[str, Any]", shown).items() if k not in hidden}
    call = ToolCall(
        name=tool.name,
        arguments=cast("Mapping[str, Json]", encode(visible)),
        call_id=call_id or named.get("tool_call_id"),
        scope=scope(),
    )

    def modified(judged: Call) -> Arguments:
        new = cast("dict[str, Any]", decode(cast("ToolCall", judged).arguments))
        new = {**{k: v for k, v in cast("Mapping[str, Any]", shown).items() if k in hidden}, **new}
        replaced: object = new
        if is_model_call:
            replaced = {**cast("dict[str, Any]", given), "args": new}
        elif not isinstance(given, Mapping):
            replaced = new.get("tool_input")
        if positional:
            return (replaced, *positional[1:]), named
        return (), {**named, field: replaced}

    return Request(call=call, shape=_VALUES, arguments=modified)


def _positional_names(tool: Any, function: Callable[..., Any], count: int) -> list[str]:
    if not count:
        return []
    names = [*_parameters(function)[0]]
    if len(names) < count and isinstance(tool, StructuredTool | Tool):
        body = vars(tool).get("func") or vars(tool).get("coroutine")
        names = [*_parameters(body)[0]] if body is not None else []
    return [*names[:count], *(f"arg{i}" for i in range(len(names), count))]


def _defaulted(tool: Any, function: Callable[..., Any], shown: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the arguments whose value the schema, or the body's signature, declares as their default."""
    fields = cast("Mapping[str, Any]", getattr(tool.args_schema, "model_fields", None) or {})
    declared = _parameters(function)[2]
    found: list[str] = []
    for name, value in shown.items():
        defaults = [fields[name].default] if name in fields else []
        defaults += [declared[name]] if name in declared else []
        if any(type(value) is type(default) and value == default for default in defaults):
            found.append(name)
    return tuple(found)


def _hidden(tool: Any, function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the arguments that LangChain or LangGraph put in: they are no part of the request."""
    keys: frozenset[str] = getattr(tool, "_injected_args_keys", frozenset())
    return _MANAGERS | _parameters(function)[1] | keys | _injected_by_schema(tool)


# By class, not in an `lru_cache`: a schema that a user made at run time must not be kept alive.
_injected: Final[WeakKeyDictionary[type, frozenset[str]]] = WeakKeyDictionary()


def _injected_by_schema(tool: Any) -> frozenset[str]:
    schema = tool.args_schema
    if not isinstance(schema, type):
        return frozenset()
    found = _injected.get(schema)
    if found is None:
        offered = tool.tool_call_schema
        found = frozenset(_fields(schema)) - frozenset(_fields(offered))
        _injected[schema] = found
    return found


def _fields(schema: type) -> Mapping[str, object]:
    # The second name is that of pydantic 1, whose models LangChain still takes.
    name = "model_fields" if hasattr(schema, "model_fields") else "__fields__"
    return cast("Mapping[str, object]", getattr(schema, name, {}))


_Parameters: TypeAlias = tuple[tuple[str, ...], frozenset[str], Mapping[str, object]]


def _parameters(function: Callable[..., Any]) -> _Parameters:
    try:
        return _cached_parameters(function)
    except TypeError:  # a callable object that cannot be hashed
        return _read_parameters(function)


def _read_parameters(function: Callable[..., Any]) -> _Parameters:
    """Return the names of the positional parameters, those that take LangChain's `config`, and defaults by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin
        return (), frozenset(), {}
    names = tuple(
        parameter.name
        for parameter in parameters
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD} and parameter.name != "self"
    )
    configs = frozenset(
        parameter.name for parameter in parameters if "RunnableConfig" in _annotation(parameter.annotation)
    )
    return names, configs, {parameter.name: parameter.default for parameter in parameters}


def _annotation(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", None) or repr(annotation)


_cached_parameters: Final = functools.lru_cache(maxsize=1024)(_read_parameters)
