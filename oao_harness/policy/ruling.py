"""Small values that judging passes around: what a rule is called, what it answers, who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["ConditionError", "Item", "Trace", "Verdict", "strictest"]


class ConditionError(Exception):
    """A condition could not be answered; whoever judges must deny."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing in a policy file that can decide: a rule, a sequence, a label, a role, an entry of a list."""

    kind: Literal["allow", "deny", "ask", "rule", "sequence", "label", "role"]
    name: str
    """Of a rule; for an entry of a list the pattern."""
    rule: str
    """What decisions call it."""
    source: str
    """`file:line`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one item says about one call."""

    verdict: Literal["allow", "ask", "deny"]
    item: Item
    reason: str = ""


Trace: TypeAlias = Callable[[Item, Literal["asked", "matched", "stopped"]], None]
"""Hears what each item said to a call: it was about it; it had something to say; it stopped it."""

_ORDER = {"allow": 0, "ask": 1, "deny": 2}


def strictest(first: Verdict | None, second: Verdict | None) -> Verdict | None:
    """Return the stricter of two verdicts; the first of equals."""
    if first is None or second is None:
        return second if first is None else first
    return second if _ORDER[second.verdict] > _ORDER[first.verdict] else first
