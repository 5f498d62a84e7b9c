"""One rule of a policy file: whom it is about, when it applies, what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from oao_harness.policy.facts import NOBODY
from oao_harness.policy.globs import Names
from oao_harness.policy.ruling import ConditionError, Item, Trace, Verdict
from oao_harness.policy.sources import values_at
from oao_hookspecs import Call, ModelCall, RunView

if TYPE_CHECKING:
    import cel

    from oao_harness.policy.conditions import Condition

__all__ = ["Finds", "Question", "Rule"]

Finds = Callable[[str, "str | int | float"], bool]
"""Answers whether a source, as the file writes it, holds a value."""


@dataclass(slots=True, kw_only=True)
class Question:
    """One call, and what rules need to judge it."""

    call: Call
    run: RunView
    access: Literal["read", "write"]
    """What the call's tool does to the world."""
    context: cel.Context | None
    """Where conditions are judged; None where the call's rules have none."""
    finds: Finds


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A compiled `[[rule]]`."""

    item: Item
    tools: Names | None
    """None: about no tool."""
    models: Names | None
    """None: about no model."""
    access: Literal["read", "write"] | None
    agents: Names | None
    when: Condition | None
    then: Literal["deny", "ask", "allow"] | None
    """None: it has requirements, and `otherwise` says what happens."""
    require: Condition | None
    values_from: Mapping[str, Sequence[str]]
    roles: frozenset[str]
    otherwise: Literal["deny", "ask"]
    reason: str
    allowed: Verdict
    """Its answer where it has no objection."""

    @property
    def conditions(self) -> list[Condition]:
        """What must be evaluated."""
        return [condition for condition in (self.when, self.require) if condition is not None]

    def rank(self, name: str) -> int:
        """Return how particular the rule is about a tool or model: 2 by exact name, 1 by glob, 0 about all."""
        names = [found for found in (self.tools, self.models) if found is not None]
        if any(found.is_exact(name) for found in names):
            return 2
        return 0 if any(found.patterns == ("*",) for found in names) else 1

    def judge(self, asked: Question, trace: Trace | None) -> Verdict | None:
        """Judge one call; None where the rule is not about it.

        Args:
            asked: About a call whose name the rule selects.
            trace: Hears what happened, or None.
        """
        call, run = asked.call, asked.run
        if self.access is not None and (isinstance(call, ModelCall) or asked.access != self.access):
            return None
        if self.agents is not None and run.agent_name not in self.agents:
            return None
        if trace is not None:
            trace(self.item, "asked")
        try:
            if self.when is not None and not self.when.holds(asked.context):
                return None
            missing = None if self.then is not None else self._missing(asked)
        except ConditionError as error:
            verdict = Verdict(verdict="deny", item=self.item, reason=f"{error}; an error is a denial")
        else:
            if self.then is not None:
                reason = self.reason or self._plainly(call)
                verdict = (
                    self.allowed if self.then == "allow" else Verdict(verdict=self.then, item=self.item, reason=reason)
                )
            elif missing is not None:
                reason = f"{self.reason} ({missing})" if self.reason else missing
                verdict = Verdict(verdict=self.otherwise, item=self.item, reason=reason)
            else:
                verdict = self.allowed
        if trace is not None:
            trace(self.item, "matched")
            if verdict.verdict != "allow":
                trace(self.item, "stopped")
        return verdict

    def _missing(self, asked: Question) -> str | None:
        """Return the requirement that is not met, as a reason."""
        call, run = asked.call, asked.run
        if self.roles and self.roles.isdisjoint((run.principal or NOBODY).roles):
            who = f"{run.principal.id!r} has" if run.principal is not None else "nobody has"
            return f"{call.kind} {call.name} needs the role {' or '.join(sorted(self.roles))}, which {who} not"
        if self.require is not None and not self.require.holds(asked.context):
            return f"{call.kind} {call.name}: {self.require.text} does not hold"
        for path, sources in self.values_from.items():
            for value in values_at(call.request, path):
                if not any(asked.finds(source, value) for source in sources):
                    return f"{call.kind} {call.name}: {path} = {value!r:.100} does not occur in {', '.join(sources)}"
        return None

    def _plainly(self, call: Call) -> str:
        return f"{call.kind} {call.name}: {self.when.text}" if self.when is not None else f"{call.kind} {call.name}"
