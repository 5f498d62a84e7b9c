"""Sequence rules: small automata over the tool calls of a run. The gate steps them, and so do tests.

Each keeps one number, so that a decision costs the same however long the run is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from oao_harness.policy.globs import Names
from oao_hookspecs import Json

__all__ = ["Counts", "SequenceRule", "Step"]


class Step(NamedTuple):
    """One call of a run, as a sequence rule sees it."""

    kind: str
    """`tool` or `model`; only tools count."""
    name: str
    arguments: Json = None
    ok: bool = True
    """False where the call ended with an error, or never ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRule:
    """What may follow what in one run.

    `never`: once a tool of `first` was called, none of `second` may be. `only`: a tool of `second` may be called only
    once one of `first` finished without an error. `at_most`: tools of `first` may be called `limit` times together.
    """

    name: str
    form: Literal["never", "only", "at_most"]
    first: Names
    second: Names
    limit: int = 0
    reason: str = ""

    def guards(self, tool: str) -> bool:
        """Return True where the rule may refuse a call of the tool."""
        return tool in (self.first if self.form == "at_most" else self.second)

    def counts_start(self, tool: str) -> bool:
        """Return True where a call of the tool counts as soon as it may happen."""
        return self.form != "only" and tool in self.first

    def counts_success(self, tool: str) -> bool:
        """Return True where a call of the tool counts when it finished without an error."""
        return self.form == "only" and tool in self.first

    def refuses(self, tool: str, count: int) -> str | None:
        """Return why a call of the tool would break the rule, or None.

        Args:
            tool: Its name.
            count: What counted before it.
        """
        if not self.guards(tool):
            return None
        if self.form == "at_most":
            return None if count < self.limit else self._said(f"{_listed(self.first)} at most {self.limit} times")
        if self.form == "never":
            return self._said(f"{tool} may not follow {_listed(self.first)}") if count else None
        return None if count else self._said(f"{tool} only after {_listed(self.first)} succeeded")

    def broken_by(self, calls: Iterable[tuple[str, str, Json, bool] | Step]) -> str | None:
        """Return how a run breaks the rule: the number of the call and why; None where it obeys.

        Args:
            calls: The calls of the run in order: kind, name, arguments, and whether it ended without an error.
        """
        count = 0
        for number, (kind, name, _, ok) in enumerate(calls, start=1):
            if kind != "tool":
                continue
            refusal = self.refuses(name, count)
            if refusal is not None:
                return f"call {number} ({name}) breaks {self.name!r}: {refusal}"
            count += self.counts_start(name) or (ok and self.counts_success(name))
        return None

    def _said(self, what: str) -> str:
        return self.reason or what


def _listed(names: Names) -> str:
    return ", ".join(names.patterns)


@dataclass(slots=True)
class Counts:
    """What the rules of one policy have counted in one run. The caller holds a lock."""

    values: list[int]
    started: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    """By id of a call that has not ended: the rules that counted its start."""

    def take_back(self, call_id: str) -> None:
        """Uncount a call that is judged again."""
        for index in self.started.pop(call_id, ()):
            self.values[index] -= 1

    def start(self, call_id: str, rules: Sequence[int]) -> None:
        """Count a call that may happen."""
        for index in rules:
            self.values[index] += 1
        if rules and call_id:
            self.started[call_id] = tuple(rules)

    def end(self, call_id: str, rules: Sequence[int]) -> None:
        """Count a call that finished without an error; what its start counted stays."""
        self.started.pop(call_id, None)
        for index in rules:
            self.values[index] += 1
