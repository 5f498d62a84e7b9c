"""Governs AutoGen's tools, workbenches and code executors where their work is done."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final, cast

from autogen_core.tools._base import BaseStreamTool, BaseTool

from oao_harness.adapters.families import Wrapped, patch_family
from oao_harness.adapters.framework_tools import tool_request
from oao_harness.adapters.patching import Arguments, Kind, Leaf, Request, govern, mark
from oao_harness.adapters.requiring import require, require_version
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime import gate
from oao_harness.runtime.context import frame
from oao_hookspecs import Json

__all__ = ["install", "install_executors", "install_workbenches"]

_DISTRIBUTION: Final = "autogen-core"
_CODE: Final = "execute_code"


def install() -> None:
    """Patch the leaves of all tools, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 0.7.5, or has no such leaves.
    """
    require_version(_DISTRIBUTION, "0.7.5")
    require(BaseTool, ("run", "run_json"), _DISTRIBUTION)
    require(BaseStreamTool, ("run_stream", "run_json_stream"), _DISTRIBUTION)
    patch_family(
        BaseTool,
        (
            _tool_leaf("run_json", "async", _prepare_json),
            _tool_leaf("run_json_stream", "astream", _prepare_json),
            _tool_leaf("run", "async", _prepare_model),
            _tool_leaf("run_stream", "astream", _prepare_model),
        ),
        with_root=True,
    )


def install_workbenches() -> None:
    """Patch the leaves of workbenches that are more than a list of tools; once.

    Raises:
        FrameworkError: The installed version has no such leaves.
    """
    from autogen_core.tools._workbench import Workbench  # noqa: PLC0415 - half imported when the tools are patched

    require(Workbench, ("call_tool",), _DISTRIBUTION)
    patch_family(
        Workbench,
        (
            Leaf(name="call_tool", kind="async", prepare=_prepare_workbench),
            Leaf(name="call_tool_stream", kind="astream", prepare=_prepare_workbench),
        ),
        # The framework's own ones hand on to tools, and these are governed.
        governs=lambda cls: not cls.__module__.startswith("autogen_core."),
    )


def install_executors() -> None:
    """Patch the leaf of all code executors, present and to come: to run code is a tool call; once.

    Raises:
        FrameworkError: The installed version has no such leaf.
    """
    from autogen_core.code_executor._base import CodeExecutor  # noqa: PLC0415 - may be there without the tools

    require_version(_DISTRIBUTION, "0.7.5")
    require(CodeExecutor, ("execute_code_blocks",), _DISTRIBUTION)
    leaf = Wrapped(name="execute_code_blocks", wrap=_govern_executor)
    patch_family(CodeExecutor, (leaf,))


# Tools


def _tool_leaf(name: str, kind: Kind, prepare: Callable[..., Request]) -> Wrapped:
    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        governed = govern(function, kind, prepare)

        @functools.wraps(function)
        async def call(self: Any, /, *args: Any, **named: Any) -> Any:
            return await (function if _is_handed_on(self) else governed)(self, *args, **named)

        @functools.wraps(function)
        async def stream(self: Any, /, *args: Any, **named: Any) -> AsyncIterator[Any]:
            # The gate's stream closes itself when this one is left.
            async for event in (function if _is_handed_on(self) else governed)(self, *args, **named):
                yield event

        return stream if kind == "astream" else call

    return Wrapped(name=name, wrap=wrap)


def _is_handed_on(tool: Any) -> bool:
    """Return True inside of the call of a workbench of the user's, which is the one that passed the gate."""
    outer, inside = mark.get(), frame.get()
    if outer is None or inside is None or not hasattr(outer.instance, "call_tool"):
        return False
    return inside.call.kind == "tool" and inside.call.name == tool.name


def _prepare_json(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    given = positional[0] if positional else named["args"]
    call_id = positional[2] if len(positional) > 2 else named.get("call_id")

    def again(changed: dict[str, Any]) -> Arguments:
        return ((changed, *positional[1:]), named) if positional else ((), {**named, "args": changed})

    return tool_request(tool.name, given, again, call_id=call_id, shape=_EVENTS)


def _prepare_model(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    given = positional[0] if positional else named["args"]

    def again(changed: dict[str, Any]) -> Arguments:
        other = type(given).model_validate(changed)
        return ((other, *positional[1:]), named) if positional else ((), {**named, "args": other})

    return tool_request(tool.name, given.model_dump(), again, shape=_EVENTS)


class _EventShape:
    """Results of tools, and the events of those that stream; the last one is the result."""

    __slots__ = ()

    def dump(self, value: Any) -> gate.Answer:
        """Return a result as JSON."""
        return gate.Answer(value={"value": encode(value)})

    def load(self, value: Json) -> Any:
        """Return the result."""
        node = cast("Mapping[str, Any]", value)
        return decode(node["value"] if "value" in node else node["events"][-1])

    def load_chunks(self, value: Json) -> Iterable[Any]:
        """Yield the events."""
        node = cast("Mapping[str, Any]", value)
        yield from (decode(event) for event in node.get("events", [node.get("value")]))

    def snapshot(self, chunk: Any) -> Json:
        """Return an event as JSON."""
        return encode(chunk)

    def is_last(self, chunk: Any) -> bool:
        """Return False: whoever reads the events reads all of them."""
        del chunk
        return False

    def join(self, snapshots: list[Json], chunks: list[Any], *, partial: bool) -> gate.Answer:
        """Return the events as JSON."""
        del chunks, partial
        return gate.Answer(value={"events": snapshots})


_EVENTS: Final = _EventShape()


# Workbenches


def _prepare_workbench(
    workbench: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None
) -> Request:
    names = ("name", "arguments", "cancellation_token", "call_id")
    given = {**dict(zip(names, arguments[0], strict=False)), **arguments[1]}

    def again(changed: dict[str, Any]) -> Arguments:
        return (), {**given, "arguments": changed}

    name, call_id = str(given["name"]), given.get("call_id")
    return tool_request(name, given.get("arguments") or {}, again, call_id=call_id, shape=_EVENTS)


# Code


def _govern_executor(function: Callable[..., Any]) -> Callable[..., Any]:
    """Govern the execution of code, unless a tool of the agent's makes it: that one is governed, with the code."""
    governed = govern(function, "async", _prepare_code)

    @functools.wraps(function)
    async def wrapper(self: Any, /, *args: Any, **named: Any) -> Any:
        outer = mark.get()
        tool = outer.instance if outer is not None else None
        is_tools = isinstance(tool, BaseTool) and getattr(tool, "_executor", None) is self
        return await (function if is_tools else governed)(self, *args, **named)

    return wrapper


def _prepare_code(executor: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    blocks = positional[0] if positional else named["code_blocks"]
    given = {"blocks": [{"language": block.language, "code": block.code} for block in blocks]}

    def again(changed: dict[str, Any]) -> Arguments:
        others = [type(block)(**fields) for block, fields in zip(blocks, changed["blocks"], strict=True)]
        return ((others, *positional[1:]), named) if positional else ((), {**named, "code_blocks": others})

    return tool_request(_CODE, given, again, scope=type(executor).__name__)
