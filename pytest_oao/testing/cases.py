"""What the conformance command tests: how a plugin is made, what it is tried with, what it declares not to do.

`--oao-store=pkg:X` and the others take one of these as X, or just what makes the plugin: a class or a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oao_hookspecs import Ledger, ModelCall, Scheduler, Store, ToolCall

__all__ = ["Heard", "LedgerCase", "ListenerCase", "PolicyCase", "SchedulerCase", "StoreCase"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCase:
    """A store to test."""

    make: Callable[[Path], Store]
    """Opens the store in a folder, which may be new. Called again with the same folder, in another process too, it
    opens the same journals; so it must survive a pickle."""
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it cannot do, and why; `StoreConformance.capabilities()` are the names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerCase:
    """A scheduler to test."""

    make: Callable[[Path], Scheduler]
    """Opens the queue in a folder, which may be new; as `StoreCase.make`."""
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it cannot do, and why; `SchedulerConformance.capabilities()` are the names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCase:
    """A ledger to test."""

    make: Callable[[Path], Ledger]
    """Opens the ledger in a folder, which may be new."""
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it cannot do, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCase:
    """A policy to test."""

    make: Callable[[], object]
    """Makes a new policy. Two of them say the same."""
    calls: Sequence[ToolCall | ModelCall] = ()
    """What an agent asks for, in this order, beside what the suite thinks of: calls that the policy has rules about."""
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it cannot do, and why; `PolicyConformance.capabilities()` are the names."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One event that a listener heard."""

    execution_id: str
    name: str
    """Familiar name of the event, for example `TOOL_CALL_FINISHED`: its `NAME`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerCase:
    """A listener to test."""

    make: Callable[[Path], object]
    """Makes a new listener. What it writes it may write into the folder, which is empty."""
    heard: Callable[[Path], Sequence[Heard]] | None = None
    """Returns what the listener that was made with this folder has kept of what it heard, in that order. None where it
    keeps nothing that can be read again: then the suite tests only that it does no harm."""
    cannot: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it cannot do, and why; `ListenerConformance.capabilities()` are the names."""
