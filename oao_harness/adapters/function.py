"""Agents without a framework: functions and objects with `invoke` or `ainvoke`."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from oao_harness.adapters.governed import tool
from oao_harness.adapters.visibility import reaches_governed

__all__ = ["FunctionAdapter", "InvokeAdapter"]


class _Driver:
    """What functions and `invoke` objects have in common: a callable that takes the task."""

    name = ""

    def _entry(self, agent: object, *, prefer_async: bool) -> Callable[..., object]:
        raise NotImplementedError

    def sees(self, agent: object) -> bool:
        """Return True where something that the agent refers to is governed."""
        return reaches_governed(agent)

    def is_async(self, agent: object) -> bool:
        """Return True where the agent has no sync way in."""
        return _is_async(self._entry(agent, prefer_async=False))

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run a sync agent."""
        entry = self._entry(agent, prefer_async=False)
        result = _call(entry, task, tools)
        if inspect.isawaitable(result):
            return asyncio.run(_await(result))
        if isinstance(result, Iterator):
            return _joined(list(cast("Iterator[object]", result)))
        return result

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run an async agent."""
        entry = self._entry(agent, prefer_async=True)
        result = _call(entry, task, tools)
        if isinstance(result, AsyncIterator):
            return _joined([chunk async for chunk in cast("AsyncIterator[object]", result)])
        return await cast("Any", result) if inspect.isawaitable(result) else result

    def output(self, result: object) -> object:
        """Return `result["output"]` where there is one, else the result."""
        if isinstance(result, Mapping):
            fields = cast("Mapping[str, object]", result)
            return fields.get("output", fields)
        return result


class FunctionAdapter(_Driver):
    """Drives a function: `agent(task)`, with `tools=` where it has such a parameter."""

    name = "function"

    def matches(self, agent: object) -> bool:
        """Return True for a callable that is not a class."""
        return callable(agent) and not isinstance(agent, type)

    def _entry(self, agent: object, *, prefer_async: bool) -> Callable[..., object]:
        return agent  # type: ignore[return-value] # pyright: ignore[reportReturnType]


class InvokeAdapter(_Driver):
    """Drives an object by `invoke(task)` or `await ainvoke(task)`, with an empty `config` where it asks for one."""

    name = "invoke"

    def matches(self, agent: object) -> bool:
        """Return True for an object with a callable `invoke` or `ainvoke`."""
        return not isinstance(agent, type) and (
            callable(getattr(agent, "invoke", None)) or callable(getattr(agent, "ainvoke", None))
        )

    def _entry(self, agent: object, *, prefer_async: bool) -> Callable[..., object]:
        first, second = ("ainvoke", "invoke") if prefer_async else ("invoke", "ainvoke")
        entry = getattr(agent, first, None)
        return cast("Callable[..., object]", entry if callable(entry) else getattr(agent, second))


async def _await(awaitable: Any) -> object:
    return await awaitable


def _is_async(entry: Callable[..., object]) -> bool:
    function = getattr(entry, "__func__", entry)
    if type(function) is types.FunctionType:
        # On the path of every run. What `inspect.markcoroutinefunction` leaves on a function is known to `inspect`.
        flags = function.__code__.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR)
        return flags != 0 or (bool(function.__dict__) and inspect.iscoroutinefunction(entry))
    call = getattr(entry, "__call__", None)  # noqa: B004 - the method of a callable object, not a test
    return any(
        inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate) for candidate in (entry, call)
    )


def _parameters(entry: Callable[..., object]) -> Mapping[str, bool]:
    """Return the parameters that a caller may name, and whether each must be given."""
    function = getattr(entry, "__func__", entry)
    if isinstance(function, types.FunctionType) and not hasattr(function, "__wrapped__"):
        # On the path of every run: `inspect.signature` costs more than the rest of it together.
        names = _names_of(function.__code__, len(function.__defaults__ or ()), frozenset(function.__kwdefaults__ or ()))
        return names if function is entry else dict(list(names.items())[1:])
    try:
        signature = inspect.signature(entry)
    except (TypeError, ValueError):  # builtins without a signature
        return {"task": True}
    return {name: one.default is inspect.Parameter.empty for name, one in signature.parameters.items()}


@functools.lru_cache(maxsize=1024)
def _names_of(code: types.CodeType, defaults: int, keyword_defaults: frozenset[str]) -> Mapping[str, bool]:
    positional = code.co_varnames[: code.co_argcount]
    others = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    names = {name: index < len(positional) - defaults for index, name in enumerate(positional)}
    names.update({name: name not in keyword_defaults for name in others})
    if code.co_flags & inspect.CO_VARARGS:
        names["*"] = False
    return names


def _call(entry: Callable[..., object], task: object, tools: Sequence[object]) -> object:
    """Call an agent with the task where it takes one, and with `tools` and `config` where it asks for them."""
    parameters = _parameters(entry)
    keywords: dict[str, object] = {}
    if parameters.get("config"):
        keywords["config"] = {}
    if tools and "tools" in parameters:
        keywords["tools"] = [tool(item) if inspect.isroutine(item) else item for item in tools]
    return entry(*((task,) if parameters else ()), **keywords)


def _joined(chunks: list[object]) -> object:
    """Return the chunks of a streaming agent: one text where all are text, else the list."""
    if chunks and all(isinstance(chunk, str) for chunk in chunks):
        return "".join(cast("list[str]", chunks))
    return chunks
