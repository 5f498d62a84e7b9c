"""Time travel through a user's checkpointer: a node that runs again is served the calls that it finished before.

LangGraph forks a checkpoint when it goes back, so the ids of its tasks are new then. What stays the same is the way
from a checkpoint that came from outside, an input or `update_state`, through the steps of the graph: that way names a
task here. Within a task the k-th call of one kind, name and request answers the k-th of the next time. A call that is
not the one of the last time makes all that follows in the graph new.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, cast

from langchain_core.runnables.config import var_child_runnable_config
from langgraph._internal._constants import (  # pyright: ignore[reportMissingTypeStubs]
    CONF,
    CONFIG_KEY_TASK_ID,
)
from langgraph.types import Command

from oao_harness.journal.replay import Served
from oao_harness.runtime.revisits import Visit
from oao_harness.runtime.run import Run
from oao_hookspecs import Call, Outcome

__all__ = ["GraphRevisits", "revisits_of"]

_lock: Final = threading.Lock()


def revisits_of(run: Run) -> GraphRevisits:
    """Return what is remembered of a run's graphs."""
    with _lock:
        if run.revisits is None:
            run.revisits = GraphRevisits()
    return cast("GraphRevisits", run.revisits)


@dataclass(slots=True, eq=False)
class _Execution:
    """A task that runs: once for each time that the graph comes by."""

    name: str
    """The way to it; the same each time."""
    at: str
    """The way to the checkpoint that it runs at."""
    is_again: bool
    asked: Counter[tuple[object, ...]] = field(default_factory=Counter[tuple[object, ...]])
    graphs: int = 0
    """Graphs that it started."""


class GraphRevisits:
    """The calls of one run by the tasks of its graphs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        """The ways to the checkpoints of this run, by id."""
        self._tasks: dict[str, _Execution] = {}
        """By LangGraph's id, the latest execution."""
        self._began: set[str] = set()
        self._turns: Counter[str] = Counter()
        """How often what follows a checkpoint became another."""
        self._ended: dict[tuple[object, ...], Outcome] = {}

    # What the loop of LangGraph tells

    def follows(self, loop: Any) -> bool:
        """Return True where one can go back in a graph's history: it has a checkpointer, or is part of such a graph."""
        return loop.checkpointer is not None or self._outer(loop) is not None

    def _outer(self, loop: Any) -> _Execution | None:
        task = loop.config.get(CONF, {}).get(CONFIG_KEY_TASK_ID)
        return self._tasks.get(str(task)) if task is not None else None

    def entered(self, loop: Any) -> None:
        """Note that a graph begins."""
        outer = self._outer(loop)
        if outer is not None:
            with self._lock:
                outer.graphs += 1
                loop.__dict__["_oao_base"] = f"{outer.name}/{outer.graphs}"

    def saved(self, loop: Any, source: str, before: str) -> None:
        """Note that a graph went on to its next checkpoint.

        Args:
            loop: After it did.
            source: `input`, `loop` or `fork`.
            before: Id of the checkpoint before.
        """
        after = str(loop.checkpoint["id"])
        with self._lock:
            way = self._names.get(before, before)
            if source == "loop":
                self._names[after] = f"{way}>{self._turns[way]}"
            elif source == "fork" and not _edits(loop.input):
                self._names[after] = way
            elif source == "input" and "_oao_base" in loop.__dict__:
                self._names[after] = str(loop.__dict__["_oao_base"])

    def stepping(self, loop: Any) -> None:
        """Note the tasks that a graph is about to run."""
        at = str(loop.checkpoint["id"])
        with self._lock:
            way = self._names.get(at, at)
            for task in loop.tasks.values():
                self._begin(str(task.id), f"{way}|{task.name}|{_path(task.path)}", way)

    def pushed(self, outer: Any, index: int, task: Any) -> None:
        """Note a task that a running task starts."""
        with self._lock:
            found = self._tasks.get(str(outer.id))
            if found is not None:
                self._begin(str(task.id), f"{found.name}|{task.name}|{index}", found.at)

    def _begin(self, id_: str, name: str, at: str) -> None:
        self._tasks[id_] = _Execution(name, at, name in self._began)
        self._began.add(name)

    # What the gate asks

    def visit(self, call: Call, inside: int | None) -> Visit | None:
        """Return where a call belongs: the innermost task around it, and its number there; see `Revisits`."""
        task = self._tasks.get(_task_id())
        if task is None:
            return None
        request = json.dumps(call.request, sort_keys=True, default=repr)
        what = (call.kind, call.name, request, inside)
        with self._lock:
            key = (task.name, *what, task.asked[what])
            task.asked[what] += 1
            found = self._ended.get(key)
            if found is None:
                if task.is_again:
                    self._turns[task.at] += 1
                return Visit(key=key)
        # Whatever the policies decide about it now: it was allowed then.
        return Visit(key=key, served=Served(outcome=found, decision=""))

    def ended(self, visit: Visit, outcome: Outcome) -> None:
        """Remember a result. Its tokens are not: who is served spends nothing. See `Revisits`."""
        if outcome.error is None:
            kept = Outcome(value=outcome.value, attempts=outcome.attempts, duration_s=outcome.duration_s)
            with self._lock:
                self._ended[visit.key] = kept


def _edits(given: object) -> bool:
    """Return True for an input that changes the state that a graph goes back to."""
    return isinstance(given, Command) and any(getattr(cast("Any", given), name) for name in ("update", "goto"))


def _path(path: tuple[Any, ...]) -> str:
    # What follows may hold ids of tasks.
    return str([part for part in path[:3] if isinstance(part, str | int)])


def _task_id() -> str:
    """Return the id of the innermost task around this call; empty outside of a graph."""
    config = var_child_runnable_config.get()
    namespace = (config.get("metadata") or {}).get("langgraph_checkpoint_ns") if config else None
    return namespace.rpartition("|")[2].rpartition(":")[2] if isinstance(namespace, str) else ""
