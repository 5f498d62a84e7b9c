"""Recorded runs in the form that policies are handed: frozen once, whoever judges them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, cast

from oao_harness.journal.histories import History
from oao_harness.runtime.budget import Budget
from oao_harness.runtime.catalog import Catalog
from oao_harness.runtime.frozen import freeze, freeze_call, freeze_outcome
from oao_harness.runtime.usage import count_characters, tokens_of_characters
from oao_hookspecs import Call, Json, Limits, ModelCall, Outcome, ToolCall

__all__ = ["ABANDON", "BEGIN_MODEL", "BEGIN_TOOL", "END_MODEL", "END_TOOL", "STEP", "Judge", "Prepared", "prepare"]

BEGIN_MODEL: Final = 0
BEGIN_TOOL: Final = 1
END_MODEL: Final = 2
END_TOOL: Final = 3
ABANDON: Final = 4
"""A call that was allowed was not made after all."""
STEP: Final = 5
"""A step of the agent's own framework."""


class Judge(Protocol):
    """Who judges, as far as preparing for it needs to know."""

    @property
    def catalog(self) -> Catalog:
        """What is declared about tools."""
        ...

    @property
    def limits(self) -> Limits:
        """What runs may spend."""
        ...

    def hears(self, hook: str) -> bool:
        """Return True where somebody implements a hook."""
        ...


@dataclass(slots=True)
class Prepared:
    """A history in the form that policies are handed: frozen, once for all who judge it."""

    history: History
    operations: list[tuple[int, int]]
    calls: list[list[Call]]
    """For each judge the calls, with what is declared about their tools."""
    outcomes: list[Outcome | None]
    proposed: dict[int, list[list[Call]]]
    """By index of a model call, where its answer asks for several tool calls: for each judge those calls."""
    sent: list[int | None]
    """About how many tokens each request has, where somebody limits that."""


def prepare(history: History, judges: Sequence[Judge]) -> Prepared:
    """Return a history as the judges are handed it.

    Args:
        history: A recorded run.
        judges: Who will judge it, in this order.
    """
    shows_models = any(judge.hears("oao_decide_model_call") or judge.hears("oao_decide_outcome") for judge in judges)
    shows_outcomes = any(judge.hears("oao_decide_outcome") or judge.hears("oao_redact_result") for judge in judges)
    counts = any(Budget(judge.limits).tracks_tokens for judge in judges)
    describing = [judge for judge in judges if judge.catalog.describes]
    messages = _Messages()
    calls: list[Call] = []
    sent: list[int | None] = []
    outcomes: list[Outcome | None] = []
    for n, told in enumerate(history.calls, start=1):
        call, unique = told.call, f"{history.name}#{n}"
        sent.append(messages.tokens(call) if counts and isinstance(call, ModelCall) else None)
        if isinstance(call, ModelCall):
            calls.append(messages.frozen(call, unique) if shows_models else call)
        else:
            calls.append(freeze_call(_undeclared(call, describing), unique=unique))
        ended = told.outcome
        outcomes.append(freeze_outcome(ended) if ended is not None and shows_outcomes else ended)
    described = [[_described(call, judge) for call in calls] if judge.catalog.describes else calls for judge in judges]
    proposed = {
        index: _proposed(told.outcome, told.call.scope, judges)
        for index, told in enumerate(history.calls)
        if told.outcome is not None and len(told.outcome.proposed) > 1
    }
    operations = [(_operation(history, *moment), moment[1]) for moment in history.moments]
    return Prepared(
        history=history, operations=operations, calls=described, outcomes=outcomes, proposed=proposed, sent=sent
    )


def _operation(history: History, what: str, index: int) -> int:
    if what == "step":
        return STEP
    told = history.calls[index]
    is_tool = told.call.kind == "tool"
    if what == "begin":
        return BEGIN_TOOL if is_tool else BEGIN_MODEL
    if told.abandoned:
        return ABANDON
    return END_TOOL if is_tool else END_MODEL


def _proposed(outcome: Outcome, scope: str, judges: Sequence[Judge]) -> list[list[Call]]:
    """Return for each judge the calls that an answer asks for, as the gate hands them to policies."""
    calls = [
        freeze_call(ToolCall(name=one.name, arguments=one.arguments, call_id=one.call_id, proposed=True, scope=scope))
        for one in outcome.proposed
    ]
    return [[_described(call, judge) for call in calls] if judge.catalog.describes else calls for judge in judges]


def _undeclared(call: ToolCall, judges: Sequence[Judge]) -> ToolCall:
    """Return a call without the traits that a policy had declared for it: each judge's own declaration counts.

    A journal does not tell who declared them. What the tool's author said is stronger than any policy; that it was
    the author is taken as known only where no judge says the same.
    """
    if call.access is None and call.effect is None:
        return call
    for judge in judges:
        traits = judge.catalog.traits(call.name)
        if traits is not None:
            if traits.access == call.access:
                call = replace(call, access=None)
            if traits.effect == call.effect:
                call = replace(call, effect=None)
    return call


def _described(call: Call, judge: Judge) -> Call:
    if not isinstance(call, ToolCall):
        return call
    traits = judge.catalog.traits(call.name)
    if traits is None or (call.effect is not None and call.access is not None):
        return call
    return replace(call, effect=call.effect or traits.effect, access=call.access or traits.access)


class _Messages:
    """Freezes and counts each message once, however many requests repeat it."""

    def __init__(self) -> None:
        self._frozen: dict[int, tuple[Json, Json]] = {}
        self._characters: dict[int, tuple[Json, int]] = {}

    def frozen(self, call: ModelCall, unique: str) -> ModelCall:
        shown = replace(call, messages=self._all(call.messages), tools=self._all(call.tools))
        return cast("ModelCall", freeze_call(shown, unique=unique))

    def _all(self, values: Sequence[Any]) -> list[Any]:
        found: list[Any] = []
        for value in values:
            known = self._frozen.get(id(value))
            if known is None:
                # Kept with the value: an id is good only as long as its object lives.
                known = self._frozen[id(value)] = value, freeze(value)
            found.append(known[1])
        return found

    def tokens(self, call: ModelCall) -> int:
        total = 0
        for value in (*call.messages, *call.tools):
            known = self._characters.get(id(value))
            if known is None:
                known = self._characters[id(value)] = value, count_characters(cast("Json", value))
            total += known[1]
        return tokens_of_characters(total)
