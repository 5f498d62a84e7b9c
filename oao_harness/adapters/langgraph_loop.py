"""Counts the steps of LangGraph's loop, keeps its node caches from hiding calls, and tells where in history it is."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from langgraph.constants import START
from langgraph.pregel._loop import (  # pyright: ignore[reportMissingTypeStubs]
    AsyncPregelLoop,
    PregelLoop,
    SyncPregelLoop,
)
from langgraph.types import Command, Interrupt, Send

from oao_harness.adapters.langgraph_revisits import GraphRevisits, revisits_of
from oao_harness.adapters.langgraph_threads import beginning
from oao_harness.adapters.patching import require, set_method
from oao_harness.journal.codec import decode, encode, register
from oao_harness.runtime.context import current, is_possible
from oao_harness.runtime.dispatch import drive
from oao_harness.runtime.run import Run
from oao_hookspecs import Json

__all__ = ["install"]


def install() -> None:
    """Patch the loop of LangGraph; once.

    Raises:
        FrameworkError: The installed LangGraph has no such loop.
    """
    own = ("_loaded_latest", "checkpoint", "checkpoint_config", "checkpoint_pending_writes", "checkpointer")
    require(PregelLoop, ("_put_checkpoint", "accept_push", "tick", "tasks", *own), "langgraph")
    require(SyncPregelLoop, ("__enter__", "match_cached_writes"), "langgraph")
    require(AsyncPregelLoop, ("__aenter__", "amatch_cached_writes"), "langgraph")
    set_method(PregelLoop, "tick", _stepping)
    set_method(PregelLoop, "_put_checkpoint", _saving)
    set_method(PregelLoop, "accept_push", _pushing)
    set_method(SyncPregelLoop, "__enter__", _entering)
    set_method(AsyncPregelLoop, "__aenter__", _entering_async)
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
            run = current() if nodes else None
            if run is not None:
                revisits = _revisits(run, self)
                if revisits is not None:
                    revisits.stepping(self)
                drive(run.stepping(", ".join(nodes)), run.hooks.timeout_s)
        return goes_on

    return counted


def _revisits(run: Run | None, loop: Any) -> GraphRevisits | None:
    """Return what remembers a graph's calls, where its history can be gone back in."""
    if run is None or (run.revisits is None and loop.checkpointer is None):
        return None
    revisits = revisits_of(run)
    return revisits if revisits.follows(loop) else None


def _entering(enter: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(enter)
    def entered(self: Any) -> Any:
        run = current() if is_possible() else None
        revisits = _revisits(run, self)
        if revisits is not None:
            revisits.entered(self)
        with beginning(run, self):
            return enter(self)

    return entered


def _entering_async(enter: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    @functools.wraps(enter)
    async def entered(self: Any) -> Any:
        run = current() if is_possible() else None
        revisits = _revisits(run, self)
        if revisits is not None:
            revisits.entered(self)
        with beginning(run, self):
            return await enter(self)

    return entered


def _saving(put: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    @functools.wraps(put)
    def saved(self: Any, metadata: Any) -> None:
        revisits = _revisits(current() if is_possible() else None, self)
        before = str(self.checkpoint["id"])
        put(self, metadata)
        if revisits is not None and str(self.checkpoint["id"]) != before:
            revisits.saved(self, str(metadata.get("source")), before)

    return saved


def _pushing(accept: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(accept)
    def accepted(self: Any, task: Any, write_idx: int, *args: Any, **kwargs: Any) -> Any:
        pushed = accept(self, task, write_idx, *args, **kwargs)
        revisits = _revisits(current() if is_possible() else None, self) if pushed is not None else None
        if revisits is not None:
            revisits.pushed(task, write_idx, pushed)
        return pushed

    return accepted


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
