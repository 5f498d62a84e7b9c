"""The runs of a test, for asserts: each is read anew from the journal whenever it is asked something."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import pytest

from oao_harness.journal.compiling import compiled
from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.records import usage_from_json
from oao_harness.journal.trajectory import Check, Trajectory
from oao_harness.runtime.run import Run
from oao_hookspecs import Json, ModelCall, Record

__all__ = ["Look", "RecordedRun", "Rule", "Violation", "cost_of", "rules_of", "violations_in"]

# A failed question is the test's failure: pytest shows the line of the test, not the lines of this module.
__tracebackhide__ = True

_PRICES = "pip install 'oao-harness[prices]', or say it in the hook oao_price"


class Rule(Protocol):
    """A rule over the calls of a run, for example one made by `oao_harness.never_after`."""

    name: str

    def broken_by(self, calls: Iterable[tuple[str, str, Json, bool]]) -> str | None:
        """Return how the calls break the rule, or None."""
        ...


def rules_of(policies: Iterable[object]) -> dict[str, Rule]:
    """Return the rules over sequences of calls that policies hold, by name."""
    found: dict[str, Rule] = {}
    for policy in policies:
        sequences = getattr(policy, "sequences", None)
        if isinstance(sequences, Mapping):
            found.update(cast("Mapping[str, Rule]", sequences))
        elif hasattr(policy, "broken_by"):
            rule = cast("Rule", policy)
            found[rule.name] = rule
    return found


@dataclass(slots=True)
class Violation:
    """What `expect_violation` caught."""

    rule: str = ""
    reason: str = ""
    plugin: str = ""


class Look(NamedTuple):
    """What there is to see of a run at one moment."""

    run: Run
    records: Sequence[Record]
    rules: Mapping[str, Rule]
    recorded_cost: float | None = None
    """What its model calls cost when they were recorded, in US dollars; None where nobody knows."""


class RecordedRun(Trajectory):
    """One run of the test, from its journal.

    Args:
        look: Returns the run, what it has journaled so far, and the rules of the policies in force, by name.
    """

    def __init__(self, look: Callable[[], Look]) -> None:
        super().__init__(())
        self._look = look

    def __repr__(self) -> str:
        try:
            return super().__repr__()
        except LookupError as nothing:  # pytest shows it in the very failure that says so
            return f"<{type(self).__name__}: {nothing}>"

    def _made(self) -> Sequence[RecordedEvent]:
        return [event for event in compiled(self.records) if not event.denied and event.kind != "http"]

    @property
    def records(self) -> Sequence[Record]:
        """The journal so far, see `oao_harness.journal.records`."""
        return self._look().records

    @property
    def agent(self) -> str:
        """Name of the agent; of the test's own run it is "main"."""
        return self._look().run.agent_name

    @property
    def usage(self) -> Mapping[str, Any]:
        """`steps`, `model_calls`, `tool_calls`, `tokens` and, where money is limited, `cost_usd`."""
        return self._look().run.budget.snapshot()

    @property
    def cost(self) -> float | None:
        """What the model calls cost in US dollars, by `oao_price`; None where a price is not known."""
        look = self._look()
        return cost_of(look.run, look.records) if look.recorded_cost is None else look.recorded_cost

    @property
    def violations(self) -> list[Violation]:
        """The rules that were broken."""
        return violations_in(self.records)

    def calls(self) -> list[tuple[str, str, Json, bool]]:
        """Return kind, name, request and success of the calls that happened, in the order they started."""
        outcomes = {record["n"]: record for record in self.records if record["type"] == "outcome"}
        found: list[tuple[str, str, Json, bool]] = []
        for record in self.records:
            if record["type"] != "call" or cast("Mapping[str, Json]", record["decision"])["verdict"] == "deny":
                continue
            outcome = outcomes.get(record["n"], {"error": True})
            found.append((str(record["kind"]), str(record["name"]), record["req"], outcome.get("error") is None))
        return found

    def within(
        self,
        *,
        max_steps: int | None = None,
        max_model_calls: int | None = None,
        max_tool_calls: int | None = None,
        max_tokens: int | None = None,
        max_cost_usd: float | None = None,
    ) -> Check:
        """Return whether the run kept a budget; a cost that nobody knows keeps none."""
        kept = super().within(
            max_steps=max_steps,
            max_model_calls=max_model_calls,
            max_tool_calls=max_tool_calls,
            max_tokens=max_tokens,
        )
        if not kept or max_cost_usd is None:
            return kept
        cost = self.cost
        if cost is None:
            return Check("", f"nobody knows what the run cost: a price is missing; {_PRICES}")
        over = f"over its budget: max_cost_usd: {cost:.6f} > {max_cost_usd:g}" if cost > max_cost_usd else None
        return Check("within its budget", over)

    def obeys(self, rule: str | Rule) -> Check:
        """Return whether the calls keep a rule, for `assert`.

        Args:
            rule: A sequence rule, or the name of one in a policy that is in force. Other rules need no assert: a
                call that breaks one fails the test.

        Raises:
            pytest.UsageError: No policy in force has a sequence rule of this name.
        """
        __tracebackhide__ = True
        rules = self._look().rules
        found = rules.get(rule) if isinstance(rule, str) else rule
        if found is None:
            known = ", ".join(sorted(rules)) or "none"
            raise pytest.UsageError(f"oao: no policy in force has a sequence rule {rule!r}; known: {known}")
        broken = found.broken_by(self.calls())
        why_not = None if broken is None else f"breaks {found.name!r}: {broken}"
        return Check(f"obeys {found.name!r}", why_not)


def violations_in(records: Iterable[Record]) -> list[Violation]:
    """Return the violations that a journal holds."""
    return [
        Violation(rule=str(one["rule"]), reason=str(one["reason"]), plugin=str(one["plugin"]))
        for one in records
        if one["type"] == "violation"
    ]


def cost_of(run: Run, records: Iterable[Record]) -> float | None:
    """Return what the model calls of a journal cost in US dollars; None where a price is not known.

    Source: the hook `oao_price` of the run's plugins; the list prices of `genai-prices` where nobody else knows.
    """
    names = {record["n"]: str(record["name"]) for record in records if record["type"] == "call"}
    cost = 0.0
    for record in records:
        usage = record.get("usage")
        if record["type"] != "outcome" or not isinstance(usage, Mapping):
            continue
        found = usage_from_json(usage)
        price = run.catalog.price(ModelCall(name=names[record["n"]], messages=())) if run.catalog is not None else None
        if price is None:
            if found.total_tokens:
                return None
            continue
        cost += (found.input_tokens * price.input_per_million + found.output_tokens * price.output_per_million) / 1e6
    return round(cost, 12)  # Sums of floats end in ...999999; no price has so many digits.
