"""Governs the tools of Strands Agents: the functions below `@tool`, and `stream` of every other kind of tool."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from strands.agent.agent import Agent
from strands.interrupt import Interrupt
from strands.tools.decorator import DecoratedFunctionTool
from strands.tools.executors._executor import ToolExecutor
from strands.tools.structured_output.structured_output_tool import StructuredOutputTool
from strands.types._events import ToolInterruptEvent
from strands.types.events import ToolResultEvent
from strands.types.tools import AgentTool

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.framework_tools import BodyGuard, named_arguments, tool_request
from oao_harness.adapters.patching import Arguments, Leaf, Mark, Request, mark, set_method
from oao_harness.adapters.requiring import require, require_version
from oao_harness.errors import RunHalted
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime.context import is_possible
from oao_harness.runtime.gate import Answer
from oao_harness.runtime.within import each_within_async
from oao_hookspecs import Json

__all__ = ["install"]


def install() -> None:
    """Patch the leaves of all tools, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 1.62, or has no such leaves.
    """
    require_version("strands-agents", "1.62")
    require(AgentTool, ("stream", "tool_name"), "strands-agents")
    require(DecoratedFunctionTool, ("_tool_func", "_metadata", "stream"), "strands-agents")
    patch_family(
        AgentTool,
        (Leaf(name="stream", kind="astream", prepare=_prepare_stream),),
        # The function below `@tool` is a leaf of its own; the other one only reads the model's last answer.
        governs=lambda cls: cls is not DecoratedFunctionTool and not issubclass(cls, StructuredOutputTool),
    )
    require(ToolExecutor, ("_execute_background",), "strands-agents")
    set_method(ToolExecutor, "_execute_background", _ending)
    if not isinstance(vars(DecoratedFunctionTool).get("_tool_func"), BodyGuard):
        set_method(DecoratedFunctionTool, "stream", _identified)
        type.__setattr__(DecoratedFunctionTool, "_tool_func", BodyGuard("_tool_func", _prepare_body))


def _ending(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what runs a tool in the background so that a halt ends it: else its agent waits for it for ever."""

    @functools.wraps(function)
    async def execute(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except RunHalted as halt:
            # The run remembers: whatever the agent asks for next is refused.
            raise RuntimeError(str(halt)) from halt

    return execute


# Functions


def _identified(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `stream` of a decorated function so that its body knows the id that the model gave to the call."""

    @functools.wraps(function)
    def stream(self: Any, tool_use: Any, *args: Any, **kwargs: Any) -> Any:
        outer = mark.get()
        if not is_possible() or (outer is not None and outer.instance is self and outer.entered):
            return function(self, tool_use, *args, **kwargs)
        inner = Mark(self, call_id=tool_use.get("toolUseId"))
        return each_within_async(mark, inner, lambda: function(self, tool_use, *args, **kwargs))

    return stream


def _prepare_body(tool: Any, function: Callable[..., Any], arguments: Arguments, call_id: str | None) -> Request:
    given = named_arguments(function, arguments)
    injected = {"agent", tool._metadata._context_param}

    def again(changed: dict[str, Any]) -> Arguments:
        return (), {**{name: value for name, value in given.items() if name in injected}, **changed}

    asked = {name: value for name, value in given.items() if name not in injected}
    return tool_request(tool.tool_name, asked, again, call_id=call_id)


# Every other tool: of a module, of an MCP server, an agent, and what users derive from `AgentTool`


class _Events:
    """What a tool streams, of which its result is kept.

    ```text
    {"result": {"status": ..., "content": ...}}     as the model is told it
    {"interrupts": [...]}                           it asks its user something
    {"value": ...}                                  it is no tool of the framework's own, and yields what it likes
    ```
    """

    __slots__ = ("_use",)

    def __init__(self, use: Mapping[str, Any]) -> None:
        self._use = use

    def snapshot(self, chunk: Any) -> Json:
        """Return an event as JSON; None for one on the way."""
        if isinstance(chunk, ToolResultEvent):
            # The id is the call's own, and for a call by the program it is made at random.
            return {"result": encode({key: value for key, value in chunk.tool_result.items() if key != "toolUseId"})}
        if isinstance(chunk, ToolInterruptEvent):
            return {"interrupts": encode([one.to_dict() for one in chunk.interrupts])}
        return None

    def is_last(self, chunk: Any) -> bool:
        """Return True for the event after which the framework may leave."""
        return isinstance(chunk, ToolResultEvent | ToolInterruptEvent)

    def join(self, snapshots: list[Json], chunks: list[Any], *, partial: bool) -> Answer:
        """Return the result."""
        del partial
        kept = [snapshot for snapshot in snapshots if snapshot is not None]
        return Answer(value=kept[-1] if kept else {"value": encode(chunks[-1]) if chunks else None})

    def dump(self, value: Any) -> Answer:
        """Return the result of all events."""
        return self.join([self.snapshot(chunk) for chunk in value], value, partial=False)

    def load(self, value: Json) -> Any:
        """Return the events."""
        return list(self.load_chunks(value))

    def load_chunks(self, value: Json) -> Iterable[Any]:
        """Yield the event that was kept."""
        node = cast("Mapping[str, Any]", value)
        if "result" in node:
            found = cast("dict[str, Any]", decode(node["result"]))
            yield ToolResultEvent(cast("Any", {"toolUseId": self._use["toolUseId"], **found}))
        elif "interrupts" in node:
            asked = [Interrupt(**one) for one in cast("list[dict[str, Any]]", decode(node["interrupts"]))]
            yield ToolInterruptEvent(cast("Any", self._use), asked)
        else:
            yield decode(node["value"])


def _prepare_stream(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, more = arguments
    given = {**dict(zip(("tool_use", "invocation_state"), positional, strict=False)), **more}
    use = given.pop("tool_use")
    asked = use.get("input")
    named = dict(asked) if isinstance(asked, Mapping) else {"input": asked}
    # A program that calls a tool by `agent.tool` hands itself on.
    injected = {"agent": named.pop("agent")} if isinstance(named.get("agent"), Agent) else {}

    def again(changed: dict[str, Any]) -> Arguments:
        other = {**injected, **changed} if isinstance(asked, Mapping) else changed["input"]
        return (), {**given, "tool_use": {**use, "input": other}}

    shape = cast("Any", _Events(use))
    return tool_request(tool.tool_name, named, again, call_id=use.get("toolUseId"), shape=shape)
