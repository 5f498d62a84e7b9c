"""What a node of a graph is asked: its own task, the graph's, and what its dependencies returned."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass

from oao_harness.errors import ConfigError
from oao_harness.runtime.graph import Outputs, TaskNode
from oao_hookspecs import Json

__all__ = ["Exactly", "items_of", "task_of"]


@dataclass(frozen=True, slots=True)
class Exactly:
    """A node's task that is made already, also where it is None or a function."""

    task: object


def task_of(node: TaskNode, asked: object, outputs: Outputs) -> object:
    """Return what a node is asked.

    Args:
        node: The node.
        asked: The task of the graph.
        outputs: What its dependencies returned.

    Raises:
        Exception: The node's own function failed.
    """
    own = node.task
    if isinstance(own, Exactly):
        return own.task
    if callable(own):
        return _called(own, outputs, asked)
    if own is None and node.over is not None and len(outputs) == 1:
        return next(iter(outputs.values()))
    task = asked if own is None else own
    return _with_context(task, outputs) if isinstance(task, str) else task


def items_of(node: TaskNode, asked: object, outputs: Outputs) -> list[object]:
    """Return what the agent of a node is asked that is run over a list, for each item.

    Raises:
        ConfigError: What it should be run over is no list.
        Exception: The node's own function failed.
    """
    over = node.over or ""
    if over not in outputs:
        raise ConfigError(f"node {node.name!r} runs over what {over!r} returns, and that was skipped")
    items = outputs[over]
    if not isinstance(items, list):
        raise ConfigError(f"node {node.name!r} runs over what {over!r} returns: that is no list, but {items!r:.60}")
    return [task_of(node, asked, {**outputs, over: item}) for item in items]


def _called(make: Callable[..., object], outputs: Outputs, asked: object) -> object:
    return make(dict(outputs), asked) if _takes_two(make) else make(dict(outputs))


def _takes_two(make: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    needed = [one for one in parameters if one.kind in positional and one.default is inspect.Parameter.empty]
    return len(needed) > 1


def _with_context(task: str, outputs: Outputs) -> str:
    told = [f"Result of {name}:\n{_text(output)}" for name, output in outputs.items()]
    return "\n\n".join([task, *told])


def _text(output: Json) -> str:
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
