"""Counts the steps of LangGraph's loop, and keeps its node caches from hiding calls."""

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

from oao_harness.adapters.patching import require, set_method
from oao_harness.journal.codec import decode, encode, register
from oao_harness.runtime.context import current, is_possible
from oao_harness.runtime.dispatch import drive
from oao_hookspecs import Json

__all__ = ["install"]


def install() -> None:
    """Patch the loop of LangGraph; once.

    Raises:
        FrameworkError: The installed LangGraph has no such loop.
    """
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
