"""Sequence rules as policies of their own, for those who write Python instead of TOML."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Literal

from oao_harness.errors import ConfigError
from oao_harness.policy.globs import Names
from oao_harness.policy.sequence import Counts, SequenceRule, Step
from oao_hookspecs import Ask, Deny, Json, ModelCall, Outcome, RunView, ToolCall, hookimpl

__all__ = ["SequencePolicy", "at_most", "never_after", "only_after"]


class SequencePolicy:
    """Keeps one sequence rule. Made by `never_after`, `only_after`, `at_most`; holds no state of a run.

    Args:
        rule: What may follow what.
        then: What a call that would break it gets.
    """

    def __init__(self, rule: SequenceRule, then: Literal["deny", "ask"] = "deny") -> None:
        if then not in {"deny", "ask"}:
            raise ConfigError(f"sequence {rule.name!r}: then={then!r}; give 'deny' or 'ask'")
        self.name = rule.name
        self.rule = rule
        self._then = then

    def __repr__(self) -> str:
        return f"SequencePolicy({self.rule.name!r})"

    def broken_by(self, calls: Iterable[tuple[str, str, Json, bool] | Step]) -> str | None:
        """Return how a run breaks the rule, or None; see `SequenceRule.broken_by`."""
        return self.rule.broken_by(calls)

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Deny | Ask | None:
        """Judge a call by what came before it, and count it."""
        memory = run.memory(self, _Memory)
        with memory.lock:
            memory.counts.take_back(call.id)
            refusal = self.rule.refuses(call.name, memory.counts.values[0])
            if not call.proposed and self.rule.counts_start(call.name):
                memory.counts.start(call.id, (0,))
        if refusal is None:
            return None
        return (Deny if self._then == "deny" else Ask)(rule=self.rule.name, reason=refusal)

    @hookimpl
    def oao_decide_batch(self, calls: Sequence[ToolCall], run: RunView) -> Deny | None:
        """Judge siblings as if all others had come before each of them."""
        memory = run.memory(self, _Memory)
        before = memory.counts.values[0]
        started = sum(self.rule.counts_start(call.name) for call in calls)
        for call in calls:
            others = before + started - self.rule.counts_start(call.name)
            refusal = self.rule.refuses(call.name, others)
            if refusal is not None and self.rule.refuses(call.name, before) is None:
                reason = f"{refusal} (calls of one batch start in chance order; ask for them one by one)"
                return Deny(rule=self.rule.name, reason=reason)
        return None

    @hookimpl
    def oao_decide_outcome(self, call: ModelCall | ToolCall, outcome: Outcome, run: RunView) -> None:
        """Count a call that finished without an error."""
        if isinstance(call, ToolCall):
            memory = run.memory(self, _Memory)
            succeeded = outcome.error is None and self.rule.counts_success(call.name)
            with memory.lock:
                memory.counts.end(call.id, (0,) if succeeded else ())


class _Memory:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts = Counts([0])


def never_after(
    after: str | Sequence[str], never: str | Sequence[str], *, name: str, then: Literal["deny", "ask"] = "deny"
) -> SequencePolicy:
    """Return the policy "once one of these tools was called, none of those may be".

    Args:
        after: Exact name or glob, or several.
        never: What may not follow.
        name: Of the rule, for decisions and reports.
        then: `deny` or `ask`.
    """
    rule = SequenceRule(name=name, form="never", first=_names(name, after), second=_names(name, never))
    return SequencePolicy(rule, then)


def only_after(
    only: str | Sequence[str],
    after_success_of: str | Sequence[str],
    *,
    name: str,
    then: Literal["deny", "ask"] = "deny",
) -> SequencePolicy:
    """Return the policy "these tools may be called only once one of those finished without an error".

    Args:
        only: Exact name or glob, or several.
        after_success_of: What must have succeeded.
        name: Of the rule, for decisions and reports.
        then: `deny` or `ask`.
    """
    rule = SequenceRule(name=name, form="only", first=_names(name, after_success_of), second=_names(name, only))
    return SequencePolicy(rule, then)


def at_most(limit: int, of: str | Sequence[str], *, name: str, then: Literal["deny", "ask"] = "deny") -> SequencePolicy:
    """Return the policy "so many calls of these tools together".

    Args:
        limit: Calls in one run, >= 0.
        of: Exact name or glob, or several.
        name: Of the rule, for decisions and reports.
        then: `deny` or `ask`.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"at_most({limit!r}, name={name!r}): give a whole number >= 0")
    rule = SequenceRule(name=name, form="at_most", first=_names(name, of), second=Names(()), limit=limit)
    return SequencePolicy(rule, then)


def _names(rule: str, given: str | Sequence[str]) -> Names:
    names = [given] if isinstance(given, str) else list(given)
    if not names or not all(names):
        raise ConfigError(f"sequence {rule!r}: {given!r} selects no tool; give a name, a glob, or several")
    return Names(names)
