"""Where a new run belongs: which run it is nested in, and which of that one's earlier nested runs it goes on with."""

from __future__ import annotations

from oao_harness.runtime import context
from oao_harness.runtime.plain import as_json
from oao_harness.runtime.run import Run
from oao_harness.runtime.turns import Arrivals, in_loop

__all__ = ["call_of", "open_parent", "wait_for_siblings", "wait_for_siblings_async"]


def open_parent() -> Run | None:
    """Return the run that this one is started in: its policies and its budget hold here too."""
    parent = context.here.get()
    if parent is not None and (not parent.closed or parent.halted is not None):
        return parent
    session = context.session()
    return session.ambient() if session is not None else None


def call_of(parent: Run | None) -> int | None:
    """Return the number of the call of a run whose body this code is; None outside of its calls."""
    outer = context.frame.get()
    return outer.n if outer is not None and parent is not None and outer.run is parent else None


def wait_for_siblings(agent_name: str, task: object) -> None:
    """Let those nested runs start first that had begun before the outer one was interrupted; only where it was.

    They start side by side, in any order: none may take the journal of another one.

    Args:
        agent_name: Of the run that is about to start.
        task: What it is asked.
    """
    parent = _resumed_parent()
    if parent is not None:
        arrivals = Arrivals(parent)
        while arrivals.may_come and not in_loop() and _is_early(parent, agent_name, task):
            arrivals.wait()


async def wait_for_siblings_async(agent_name: str, task: object) -> None:
    """Let other nested runs start first; see `wait_for_siblings`."""
    parent = _resumed_parent()
    if parent is not None:
        arrivals = Arrivals(parent)
        while arrivals.may_come and _is_early(parent, agent_name, task):
            await arrivals.wait_async()


def _resumed_parent() -> Run | None:
    # Not `open_parent`: an ambient run is never resumed, and the question would open one.
    parent = context.here.get()
    return parent if parent is not None and parent.resumption is not None else None


def _is_early(parent: Run, agent_name: str, task: object) -> bool:
    resumption = parent.resumption
    return resumption is not None and resumption.has_other_children(call_of(parent), agent_name, as_json(task))
