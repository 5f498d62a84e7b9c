"""Governs the tools of smolagents: calling them, their `forward` where it is called itself, and managed agents."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from smolagents.agents import MultiStepAgent
from smolagents.default_tools import FinalAnswerTool
from smolagents.tools import Tool

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.framework_tools import governed_function, tool_request
from oao_harness.adapters.patching import Arguments, Leaf, Request, govern, is_wrapper, made_here, patching, set_method
from oao_harness.adapters.requiring import require, require_version
from oao_harness.runtime.context import is_possible

__all__ = ["install"]

# How an agent says to a tool that its arguments and its result are the agent's own kinds of texts and pictures.
_SANITIZE: Final = "sanitize_inputs_outputs"


def install() -> None:
    """Patch the leaves of all tools and agents, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 1.26, or has no such leaves.
    """
    require_version("smolagents", "1.26")
    require(Tool, ("__call__", "forward", "validate_arguments"), "smolagents")
    require(MultiStepAgent, ("__call__", "run"), "smolagents")
    set_method(Tool, "__call__", _called)
    for cls in _descendants(Tool):
        _patch_static(cls)
    patch_family(
        Tool,
        (Leaf(name="__call__", kind="sync", prepare=_prepare), Leaf(name="forward", kind="sync", prepare=_prepare)),
        governs=lambda cls: cls is not FinalAnswerTool,
    )
    set_method(Tool, "validate_arguments", _validated)
    patch_family(MultiStepAgent, (Leaf(name="__call__", kind="sync", prepare=_prepare_agent),), with_root=True)


def _called(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `Tool.__call__` so that it passes the gate, but for the tool by which a model gives its answer."""
    governed = govern(function, "sync", _prepare)

    @functools.wraps(function)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        is_answer = isinstance(self, FinalAnswerTool) and type(self).forward is FinalAnswerTool.forward
        return (function if is_answer else governed)(self, *args, **kwargs)

    return call


def _prepare(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    asked = {name: value for name, value in named.items() if name != _SANITIZE}
    is_dict = len(positional) == 1 and not asked and isinstance(positional[0], dict)
    if is_dict and all(name in tool.inputs for name in positional[0]):
        asked = dict(positional[0])
    else:
        asked = {**dict(zip(tool.inputs, positional, strict=False)), **asked}

    def again(changed: dict[str, Any]) -> Arguments:
        return (), {**{name: named[name] for name in named if name == _SANITIZE}, **changed}

    return tool_request(tool.name, asked, again)


def _prepare_agent(agent: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    asked: Mapping[str, Any] = {**dict(zip(("task",), positional, strict=False)), **named}
    return tool_request(agent.name or type(agent).__name__, asked, lambda changed: ((), changed))


# The decorator `@tool` makes a class of each function, and puts the function into it when the class exists already


class _StaticBody(staticmethod):  # type: ignore[type-arg]
    """A function in a tool's class that passes the gate where somebody calls it as the tool's `forward`."""

    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        function = super().__get__(instance, owner)
        if instance is None or not is_possible():
            return function
        return governed_function(function, "sync", _prepare, instance)


def _patch_static(cls: type) -> None:
    with patching:
        function = vars(cls).get("forward")
        if isinstance(function, staticmethod) and not is_wrapper(function):
            body = _StaticBody(function.__func__)
            made_here(body)
            type.__setattr__(cls, "forward", body)


def _validated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what every new tool passes."""

    @functools.wraps(function)
    def validate(self: Any, *args: Any, **kwargs: Any) -> Any:
        for cls in type(self).__mro__:
            _patch_static(cls)
        return function(self, *args, **kwargs)

    return validate


def _descendants(cls: type) -> Iterator[type]:
    children: list[type] = type.__subclasses__(cls)
    for child in children:
        yield child
        yield from _descendants(child)
