"""Governs CrewAI's tools where their work is done: below its own accounts of how often one was used."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from crewai.tools.base_tool import BaseTool, Tool
from crewai.tools.structured_tool import CrewStructuredTool

from oao_harness.adapters.families import Wrapped, patch_family
from oao_harness.adapters.framework_tools import governed_function, tool_request
from oao_harness.adapters.patching import Arguments, Kind, Request, govern, is_wrapper, set_method
from oao_harness.adapters.requiring import require, require_version
from oao_harness.runtime.context import current, is_possible

__all__ = ["install", "install_cache"]

_DISTRIBUTION: Final = "crewai"
_METHODS: Final[Mapping[str, Kind]] = {"_run": "sync", "_arun": "async"}
_ENTRIES: Final[Mapping[str, Kind]] = {"run": "sync", "arun": "async"}
_WRITTEN: Final = object()
"""Who remembers, in a run, what was put into caches by it."""


def install() -> None:
    """Patch the leaves of all tools, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 1.15, or has no such leaves.
    """
    require_version(_DISTRIBUTION, "1.15")
    require(BaseTool, ("run", "arun", "_run", "_arun", "args_schema"), _DISTRIBUTION)
    require(Tool, ("func",), _DISTRIBUTION)
    require(CrewStructuredTool, ("func", "invoke", "ainvoke", "args_schema"), _DISTRIBUTION)
    patch_family(
        BaseTool,
        [Wrapped(name=name, wrap=_governing(kind)) for name, kind in _METHODS.items()],
        [Wrapped(name=name, wrap=_governing(kind)) for name, kind in _ENTRIES.items()],
        # It calls the function that it was made of, and that one is governed.
        governs=lambda cls: cls.__module__ != Tool.__module__,
    )
    for cls in (Tool, CrewStructuredTool):
        if not isinstance(inspect.getattr_static(cls, "func", None), _FunctionGuard):
            type.__setattr__(cls, "func", _FunctionGuard())


def install_cache() -> None:
    """Let a tool's cached result be served only in the run that made it: nobody judged it for another one; once."""
    cache = importlib.import_module("crewai.agents.cache.cache_handler").CacheHandler
    require(cache, ("add", "read"), _DISTRIBUTION)

    def adding(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def add(self: Any, tool: str, input: str, output: Any) -> Any:
            function(self, tool=tool, input=input, output=output)
            run = current() if is_possible() else None
            if run is not None:
                written: dict[tuple[int, str, str], Any] = run.memory(_WRITTEN, dict)
                written[id(self), tool, input] = self

        return add

    def reading(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def read(self: Any, tool: str, input: str) -> Any:
            run = current() if is_possible() else None
            if run is not None and (id(self), tool, input) not in run.memory(_WRITTEN, dict):
                return None
            return function(self, tool=tool, input=input)

        return read

    set_method(cache, "add", adding)
    set_method(cache, "read", reading)


def _governing(kind: Kind) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what governs a method, which may be async where its name says nothing of that."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        is_async = kind == "async" or inspect.iscoroutinefunction(function)
        return govern(function, "async" if is_async else "sync", _prepare)

    return wrap


class _FunctionGuard:
    """The function that a tool was made of: it passes the gate whoever calls it, also where the tool was made before.

    The class has no value for it, as it had none before: pydantic keeps fields in the instance.
    """

    __slots__ = ()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            raise AttributeError("func")
        try:
            value = instance.__dict__["func"]
        except KeyError:
            raise AttributeError("func") from None
        # The method of a tool is governed itself.
        if not is_possible() or value is None or isinstance(getattr(value, "__self__", None), BaseTool):
            return value
        return governed_function(value, "async" if inspect.iscoroutinefunction(value) else "sync", _prepare, instance)

    def __set__(self, instance: Any, value: Any) -> None:
        # Who hands on what he read shall not have it wrapped once more.
        instance.__dict__["func"] = getattr(value, "__wrapped__", value) if is_wrapper(value) else value

    def __delete__(self, instance: Any) -> None:
        del instance.__dict__["func"]


def _prepare(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    given = {**dict(zip(_names(tool, positional), positional, strict=False)), **named}

    def again(changed: dict[str, Any]) -> Arguments:
        return (), changed

    return tool_request(str(tool.name), given, again)


def _names(tool: Any, positional: tuple[Any, ...]) -> list[str]:
    names = list(getattr(tool.args_schema, "model_fields", None) or ()) if positional else []
    return [*names, *(f"arg{index}" for index in range(len(names), len(positional)))]
