"""What a framework that can go back in time tells the gate: whether a call is one that this run made before.

A run's `revisits` are set by an adapter; without one every call of a live run is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from oao_harness.journal.replay import Served
from oao_hookspecs import Call, Outcome

__all__ = ["Revisits", "Visit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One call on its way through the gate, as the framework places it."""

    key: tuple[object, ...]
    """Where and what it is: equal for the call that repeats it."""
    served: Served | None = None
    """How it ended when it was made before."""


class Revisits(Protocol):
    """Remembers the calls of a run by their place in the framework's own history. Safe to use from many threads."""

    def visit(self, call: Call, inside: int | None) -> Visit | None:
        """Return where a call belongs, or None where the framework keeps no history here. Asked once per call.

        Args:
            call: As the agent made it.
            inside: Number of the call whose body makes it.
        """
        ...

    def ended(self, visit: Visit, outcome: Outcome) -> None:
        """Remember how a call ended; only what succeeded is served again."""
        ...
