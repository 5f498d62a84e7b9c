"""Drives compiled LangGraph graphs. Their steps are counted by the module beside this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from langchain_core.runnables.base import RunnableBindingBase
from langgraph.pregel import Pregel  # pyright: ignore[reportMissingTypeStubs]

from oao_harness.adapters.langchain import text_of
from oao_harness.runtime.context import here

__all__ = ["ADAPTER", "LangGraphAdapter"]


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
        return cast("Any", agent).invoke(_input_of(agent, task), _config_of(agent))

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the graph on the task; a graph has its own tools, and `tools` are not added to them."""
        del tools
        return await cast("Any", agent).ainvoke(_input_of(agent, task), _config_of(agent))

    def output(self, result: object) -> object:
        """Return the structured response, or the text of the last message, else the whole state."""
        if not isinstance(result, dict):
            return text_of(result)
        state = cast("dict[str, object]", result)
        if interrupts := state.get("__interrupt__"):
            return {"__interrupt__": [getattr(item, "value", item) for item in cast("Sequence[object]", interrupts)]}
        if state.get("structured_response") is not None:
            return state["structured_response"]
        messages = state.get("messages")
        return text_of(cast("list[object]", messages)[-1]) if isinstance(messages, list) and messages else state


def _graph_of(agent: object) -> Any:
    """Return the graph inside of bindings, or None. Its four type parameters say nothing here."""
    while isinstance(agent, RunnableBindingBase):
        agent = cast("Any", agent).bound
    return cast("Any", agent) if isinstance(agent, Pregel) else None


def _input_of(agent: object, task: object) -> Any:
    graph = _graph_of(agent)
    if isinstance(task, str) and graph is not None and "messages" in _input_channels(graph):
        return {"messages": [{"role": "user", "content": task}]}
    return task


def _input_channels(graph: Any) -> frozenset[str]:
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
        config = cast("Mapping[str, Any] | None", getattr(layer, "config", None))
        configurable = cast("Mapping[str, Any] | None", config.get("configurable") if config else None)
        if configurable and configurable.get("thread_id") is not None:
            return None
        layer = getattr(layer, "bound", None) if layer is not graph else None
    return {"configurable": {"thread_id": run.execution_id}}


def _parts(graph: Any) -> Iterator[object]:
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
