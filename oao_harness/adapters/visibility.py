"""Can the gate see what a hand-written agent does? A look at what it refers to, without running any of it."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, cast

from oao_harness.adapters.governed import is_governed
from oao_harness.runtime.reach import attributes_of, function_of, is_routine, names_of, references_of

__all__ = ["reaches_governed"]

_FRAMEWORKS: Final = (
    "agent_framework",
    "agents",
    "agno",
    "anthropic",
    "autogen_",
    "crewai",
    "google.adk",
    "google.genai",
    "langchain",
    "langgraph",
    "llama_index",
    "mcp",
    "openai",
    "pydantic_ai",
    "smolagents",
    "strands",
)


def reaches_governed(agent: object) -> bool:
    """Return True where the agent is, holds, or names in its code, something whose calls pass the gate.

    A look at attributes, closures, globals and imports, one level deep. It may be wrong in both directions; where it
    says False and the agent is governed all the same, passing `tools=` says so.

    Args:
        agent: A function, or an object with `invoke` or `ainvoke`.
    """
    return is_governed(agent) or any(_is_visible(value) for value in _references(agent))


def _is_visible(value: object) -> bool:
    if is_governed(value):
        return True
    if isinstance(value, types.ModuleType):
        return value.__name__.startswith(_FRAMEWORKS)
    items: Iterable[object] = (value,)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).values()
    elif isinstance(value, list | tuple | set):
        items = cast("Iterable[object]", value)
    return any(_is_framework(item) or is_governed(item) for item in items)


def _is_framework(value: object) -> bool:
    cls = value if isinstance(value, type) else type(value)
    return any(base.__module__.startswith(_FRAMEWORKS) for base in cls.__mro__)


def _references(agent: object) -> Iterator[object]:
    if is_routine(agent):
        yield from _named_in(agent)
        return
    yield from (value for _, value in attributes_of(agent))
    for name in ("invoke", "ainvoke", "__call__"):
        method = getattr(type(agent), name, None)
        if isinstance(method, types.FunctionType):
            yield from _named_in(method)


def _named_in(routine: object) -> Iterator[object]:
    if type(routine) is types.FunctionType and not routine.__closure__ and not names_of(routine.__code__):
        # On the path of every run: it refers to nothing.
        return
    bound_to = getattr(routine, "__self__", None)
    if bound_to is not None and not isinstance(bound_to, types.ModuleType):
        yield from (value for _, value in attributes_of(bound_to))
    function = function_of(routine)
    if function is None:
        return
    yield from (value for _, value in references_of(function))
    for name in names_of(function.__code__):
        if name.startswith(_FRAMEWORKS) and name not in function.__globals__:
            # An import inside the body: the module is named, and maybe not loaded yet.
            yield types.ModuleType(name)
