"""Lists the tools of an agent, as far as it can be asked: nothing of it is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

__all__ = ["tools_of"]

_DEPTH = 4


def tools_of(agent: object) -> list[str]:
    """Return the names of the tools that an agent holds, sorted; empty where they cannot be listed.

    Looks where agents keep them: `tools`, `tools_by_name`, the nodes of a compiled graph, what a runnable is bound to.

    Args:
        agent: Any agent.
    """
    return sorted(set(_found(agent, _DEPTH)))


def _found(holder: object, depth: int) -> Iterator[str]:
    if depth == 0:
        return
    by_name: Any = getattr(holder, "tools_by_name", None)
    if isinstance(by_name, Mapping):
        yield from (str(name) for name in cast("Mapping[object, object]", by_name))
    tools: Any = getattr(holder, "tools", None)
    if isinstance(tools, Mapping):
        yield from (str(name) for name in cast("Mapping[object, object]", tools))
    elif isinstance(tools, Sequence) and not isinstance(tools, str):
        yield from (name for tool in cast("Sequence[object]", tools) if (name := _name_of(tool)))
    nodes: Any = getattr(holder, "nodes", None)
    if isinstance(nodes, Mapping):
        for node in cast("Mapping[object, object]", nodes).values():
            yield from _found(node, depth - 1)
    for inner in ("bound", "runnable"):
        held: object = getattr(holder, inner, None)
        if held is not None and held is not holder:
            yield from _found(held, depth - 1)


def _name_of(tool: object) -> str:
    name: Any = getattr(tool, "name", None) or getattr(tool, "__name__", None)
    return name if isinstance(name, str) else ""
