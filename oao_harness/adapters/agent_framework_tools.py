"""Governs the tools of Microsoft's agent-framework: functions, agents as tools, and those of MCP servers."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from agent_framework._tools import FunctionTool
from agent_framework._types import Content

from oao_harness.adapters.families import Wrapped, patch_family
from oao_harness.adapters.framework_tools import tool_request
from oao_harness.adapters.patching import Arguments, Leaf, Request, govern, mark
from oao_harness.adapters.requiring import require, require_version
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime import gate
from oao_hookspecs import Json

__all__ = ["install", "install_mcp"]

_DISTRIBUTION: Final = "agent-framework-core"
_INVOKE: Final = frozenset({"arguments", "context", "tool_call_id", "skip_parsing"})


def install() -> None:
    """Patch all function tools, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 1.23, or has no such leaves.
    """
    require_version(_DISTRIBUTION, "1.23")
    require(FunctionTool, ("invoke", "__call__"), _DISTRIBUTION)
    patch_family(
        FunctionTool,
        (
            Leaf(name="invoke", kind="async", prepare=_prepare_invoke),
            Wrapped(name="__call__", wrap=_govern_call),
        ),
        with_root=True,
    )


def install_mcp() -> None:
    """Patch the calls that an MCP server's tools are handed on by, and that a program makes itself; once."""
    from agent_framework._mcp import MCPTool  # noqa: PLC0415 - half imported when the tools are patched

    require(MCPTool, ("call_tool", "functions"), _DISTRIBUTION)
    leaf = Wrapped(name="call_tool", wrap=_govern_mcp)
    patch_family(MCPTool, (leaf,), with_root=True)


class _ContentShape:
    """Results of tools: what the framework made of them, or the value itself where it was asked to leave it."""

    __slots__ = ()

    def dump(self, value: Any) -> gate.Answer:
        """Return a result as JSON."""
        items = value if isinstance(value, list) else []
        if items and all(isinstance(item, Content) for item in items):
            return gate.Answer(value={"contents": [encode(item.to_dict()) for item in items]})
        return gate.Answer(value={"value": encode(value)})

    def load(self, value: Json) -> Any:
        """Return the result."""
        node = cast("Mapping[str, Any]", value)
        if "value" in node:
            return decode(node["value"])
        return [Content.from_dict(cast("Any", decode(item))) for item in node["contents"]]

    def load_chunks(self, value: Json) -> Any:
        """Yield the result; no tool streams."""
        yield self.load(value)


_CONTENTS: Final = _ContentShape()


def _prepare_invoke(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    context = named.get("context")
    given = named.get("arguments")
    if given is None:
        direct = {key: value for key, value in named.items() if key not in _INVOKE}
        given = direct or (context.arguments if context is not None else {})

    def again(changed: dict[str, Any]) -> Arguments:
        others = {key: value for key, value in named.items() if key in _INVOKE}
        return positional, {**others, "arguments": changed}

    call_id = named.get("tool_call_id")
    return tool_request(tool.name, _mapping(given), again, call_id=call_id, shape=_CONTENTS)


def _mapping(given: Any) -> Mapping[str, object]:
    dump = getattr(given, "model_dump", None)
    return dump(exclude_unset=True) if dump is not None else dict(given)


def _govern_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Govern a tool that is called like the function it was made of, which may be async."""

    async def acall(self: Any, *args: Any, **named: Any) -> Any:
        return await function(self, *args, **named)

    run, run_async = govern(function, "sync", _prepare_call), govern(acall, "async", _prepare_call)

    @functools.wraps(function)
    def wrapper(self: Any, /, *args: Any, **named: Any) -> Any:
        return (run_async if inspect.iscoroutinefunction(_body(self)) else run)(self, *args, **named)

    return wrapper


def _body(tool: Any) -> Any:
    return tool.func.func if isinstance(tool.func, FunctionTool) else tool.func


def _prepare_call(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    names = list(tool.parameters().get("properties", {}))
    given = {**dict(zip(names, positional, strict=False)), **named}
    injected = {key: given.pop(key) for key in list(given) if key == tool._context_parameter_name}

    def again(changed: dict[str, Any]) -> Arguments:
        return (), {**changed, **injected}

    return tool_request(tool.name, given, again)


def _govern_mcp(function: Callable[..., Any]) -> Callable[..., Any]:
    """Govern a call of a tool on an MCP server, unless a tool of the agent's makes it: that one is governed."""
    governed = govern(function, "async", _prepare_mcp)

    @functools.wraps(function)
    async def wrapper(self: Any, /, *args: Any, **named: Any) -> Any:
        outer = mark.get()
        tool = outer.instance if outer is not None else None
        if isinstance(tool, FunctionTool) and tool in self.functions:
            return await function(self, *args, **named)
        return await governed(self, *args, **named)

    return wrapper


def _prepare_mcp(server: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    name, given = (positional[0], named) if positional else (named["tool_name"], {**named})
    given = {key: value for key, value in given.items() if key not in {"tool_name", "_meta"}}
    meta = {"_meta": named["_meta"]} if "_meta" in named else {}

    def again(changed: dict[str, Any]) -> Arguments:
        return (name,), {**changed, **meta}

    return tool_request(str(name), given, again, scope=str(server.name), shape=_CONTENTS)
