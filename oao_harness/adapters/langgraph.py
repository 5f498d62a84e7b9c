"""Drives compiled LangGraph graphs, counts their steps, and keeps node caches from hiding calls."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from langchain_core.runnables.base import RunnableBindingBase
from langgraph.constants import START
from langgraph.pregel import Pregel
from langgraph.types import Command, Interrupt, Send

from oao_harness.adapters.langchain import text_of
from oao_harness.adapters.patching import require, set_method
from oao_harness.journal.codec import decode, encode, register
from oao_harness.runtime.context import current, here, is_possible
from oao_harness.runtime.dispatch import drive
from oao_hookspecs import Json

__all__ = ["ADAPTER", "LangGraphAdapter", "install"]


def install() -> None:
    """Patch the loop of LangGraph; once.

    Raises:
        FrameworkError: The installed LangGraph has no such loop.
    """
    from langgraph.pregel._loop import AsyncPregelLoop, PregelLoop, SyncPregelLoop  # noqa: PLC0415 - private, so late

    require(PregelLoop, ("tick", "tasks"), "langgraph")
    require(SyncPregelLoop, ("match_cached_writes",), "langgraph")
    require(AsyncPregelLoop, ("amatch_cached_writes",), "langgraph")
    set_method(PregelLoop, "tick", _stepping)
    set_method(SyncPregelLoop, "match_cached_writes", _without_cache)
    set_method(AsyncPregelLoop, "amatch_cached_writes", _without_cache_async)
    register("lg.Command", Command, _dump_command, lambda node: Command(**_decoded(node)))
    register("lg.Send", Send, lambda send: {"node": send.node, "arg": encode(send.arg)}, lambda n: Send(**_decoded(n)))
    register("lg.Interrupt", Interrupt, _dump_interrupt, lambda node: Interrupt(**_decoded(node)))


def _stepping(tick: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Count each step of a graph that has something to do; the limit on steps stops a graph that never ends."""

    @functools.wraps(tick)
    def counted(self: Any) -> bool:
        goes_on = tick(self)
        if goes_on:
            # `__start__` only hands the input over; LangGraph's own recursion limit does not count it either.
            nodes = dict.fromkeys(task.name for task in self.tasks.values() if task.name != START)
            if nodes and (run := current()) is not None:
                drive(run.stepping(", ".join(nodes)), run.hooks.timeout_s)
        return goes_on

    return counted


def _without_cache(match: Callable[[Any], Sequence[Any]]) -> Callable[[Any], Sequence[Any]]:
    """Run the nodes of a governed graph: a hit of a `CachePolicy` would hide the calls that a node makes."""

    @functools.wraps(match)
    def matched(self: Any) -> Sequence[Any]:
        return () if is_possible() else match(self)

    return matched


def _without_cache_async(match: Callable[[Any], Awaitable[Sequence[Any]]]) -> Callable[[Any], Awaitable[Sequence[Any]]]:
    @functools.wraps(match)
    async def matched(self: Any) -> Sequence[Any]:
        return () if is_possible() else await match(self)

    return matched


def _decoded(node: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", decode(node))


def _dump_command(command: Command[Any]) -> Json:
    fields = {name: getattr(command, name) for name in ("graph", "update", "resume", "goto")}
    return {name: encode(value) for name, value in fields.items() if value is not None and value != ()}


def _dump_interrupt(interrupt: Interrupt) -> Json:
    return {"value": encode(interrupt.value), "id": interrupt.id}


class LangGraphAdapter:
    """Drives a compiled graph by `invoke` or `ainvoke`.

    A task that is a text becomes `{"messages": [{"role": "user", ...}]}` where the graph takes messages; a graph
    with a checkpointer and no `thread_id` of its own gets the run's id as thread.
    """

    name = "langgraph"

    def matches(self, agent: object) -> bool:
        """Return True for a compiled graph, also one that `with_retry` and its like wrapped."""
        return _graph_of(agent) is not None

    def sees(self, agent: object) -> bool:
        """Return True: models and tools are governed where they are defined."""
        del agent
        return True

    def is_async(self, agent: object) -> bool:
        """Return True where a node, or a tool of a tool node, has no sync function."""
        graph = _graph_of(agent)
        return graph is not None and any(_is_async_only(part) for part in _parts(graph))

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the graph on the task; a graph has its own tools, and `tools` are not added to them."""
        del tools
        return cast("Pregel[Any, Any, Any, Any]", agent).invoke(_input_of(agent, task), _config_of(agent))

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the graph on the task; a graph has its own tools, and `tools` are not added to them."""
        del tools
        return await cast("Pregel[Any, Any, Any, Any]", agent).ainvoke(_input_of(agent, task), _config_of(agent))

    def output(self, result: object) -> object:
        """Return the structured response, or the text of the last message, else the whole state."""
        if not isinstance(result, Mapping):
            return text_of(result)
        state = cast("Mapping[str, object]", result)
        if interrupts := state.get("__interrupt__"):
            return {"__interrupt__": [getattr(item, "value", item) for item in cast("Sequence[object]", interrupts)]}
        if state.get("structured_response") is not None:
            return state["structured_response"]
        messages = state.get("messages")
        return text_of(messages[-1]) if isinstance(messages, list) and messages else state


def _graph_of(agent: object) -> Pregel[Any, Any, Any, Any] | None:
    while isinstance(agent, RunnableBindingBase):
        agent = cast("object", agent.bound)
    return agent if isinstance(agent, Pregel) else None


def _input_of(agent: object, task: object) -> Any:
    graph = _graph_of(agent)
    if isinstance(task, str) and graph is not None and "messages" in _input_channels(graph):
        return {"messages": [{"role": "user", "content": task}]}
    return task


def _input_channels(graph: Pregel[Any, Any, Any, Any]) -> frozenset[str]:
    builder = getattr(graph, "builder", None)
    if builder is not None:
        return frozenset(builder.schemas.get(builder.input_schema, ()))
    channels = graph.input_channels
    return frozenset() if isinstance(channels, str) else frozenset(channels)


def _config_of(agent: object) -> Any:
    """Return a config with a thread for a graph that keeps checkpoints and was given none."""
    graph, run = _graph_of(agent), here.get()
    # A checkpointer that is True or False is inherited or refused; only an object asks for a thread.
    if graph is None or run is None or isinstance(graph.checkpointer, bool | None):
        return None
    layer = agent
    while layer is not None:
        config = cast("Mapping[str, Any]", getattr(layer, "config", None) or {})
        if (config.get("configurable") or {}).get("thread_id") is not None:
            return None
        layer = getattr(layer, "bound", None) if layer is not graph else None
    return {"configurable": {"thread_id": run.execution_id}}


def _parts(graph: Pregel[Any, Any, Any, Any]) -> Iterator[object]:
    """Yield what the nodes of a graph run, and the tools of its tool nodes."""
    for node in graph.nodes.values():
        bound = node.bound
        for part in (bound, *getattr(bound, "steps", ())):
            yield part
            yield from cast("Mapping[str, object]", getattr(part, "tools_by_name", None) or {}).values()


def _is_async_only(part: object) -> bool:
    fields = vars(part)
    if "afunc" in fields:
        return fields.get("func") is None and fields["afunc"] is not None
    return "func" in fields and fields["func"] is None and fields.get("coroutine") is not None


ADAPTER: Final = LangGraphAdapter()
