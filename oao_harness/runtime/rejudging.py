"""Judges recorded calls again, as the gate would have with their history; runs nothing, halts nothing.

What the gate does for a call is done in the same order with the same parts: policies, budget, settlement, outcome,
batch. Only what a denial does differs: the call is counted as if it had been let through, so that every call is
judged. Plain policies are asked without the gate's generators, which is what makes this fast; one that awaits, or
modifies calls, is asked by the gate's own code.

Not judged is what recorded calls do not tell: time limits, what happens beside the gate, budgets shared with others.
"""

from __future__ import annotations

import inspect
import threading
from asyncio import CancelledError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias, cast

from oao_harness.errors import RunHalted
from oao_harness.journal.codec import error_line
from oao_harness.journal.histories import History
from oao_harness.plugins.manager import hook_names, make_manager
from oao_harness.runtime.budget import Budget, Hold
from oao_harness.runtime.catalog import Catalog
from oao_harness.runtime.context import in_plugin
from oao_harness.runtime.dispatch import ALLOWED, HookImpl, Hooks, checked, decide, denial_for, drive, too_slow
from oao_harness.runtime.frozen import freeze
from oao_harness.runtime.judging import as_denial, judge_batch, judge_call, judge_outcome, redacted
from oao_harness.runtime.limits import NamedLimits
from oao_harness.runtime.preparing import ABANDON, BEGIN_MODEL, BEGIN_TOOL, END_TOOL, Prepared
from oao_harness.runtime.run import Run
from oao_hookspecs import (
    Allow,
    Ask,
    Call,
    Decision,
    Deny,
    Json,
    Limits,
    ModelCall,
    Modify,
    Outcome,
    ToolCall,
)

__all__ = ["NOT_JUDGED", "Judged", "Rejudge", "Stage", "Stop"]

Stage: TypeAlias = Literal["task", "call", "outcome", "batch", "step", "output"]
"""Where in a run something is refused or held: the task as a whole, a call before it is made, what it returned, the
calls that an answer asks for together, a step of the agent's framework, the run's output."""

NOT_JUDGED: Final = ("timeout_s", "call_timeout_s", "require_governed", "process_tools")
"""The limits that nobody can judge from recorded calls."""

_MODEL: Final = "oao_decide_model_call"
_TOOL: Final = "oao_decide_tool_call"
_OUTCOME: Final = "oao_decide_outcome"
_BATCH: Final = "oao_decide_batch"
_ORDERS: Final[Mapping[str, tuple[str, ...]]] = {
    _MODEL: ("call", "run"),
    _TOOL: ("call", "run"),
    _OUTCOME: ("call", "outcome", "run"),
    _BATCH: ("calls", "run"),
}
"""What each hook is handed, in the order of its specification."""
_DECISIONS: Final = (Allow, Deny, Ask, Modify)
_UNLIMITED: Final = Budget(Limits())
# One run is judged in one thread; memories of different runs may be made one after the other.
_LOCK: Final = threading.Lock()

_Impl: TypeAlias = tuple[Any, tuple[int, ...] | None, HookImpl]
"""The function, the places of its arguments where it does not take all of them in order, and whose it is."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Something beside the judgement of a single call that ends or holds a run."""

    stage: Stage
    index: int
    """Of the call; -1 for the run as a whole."""
    decision: Deny | Ask


@dataclass(slots=True)
class Judged:
    """What the policies say to one run."""

    decisions: list[Decision]
    """One for each call, by its index."""
    stops: list[Stop] = field(default_factory=list[Stop])
    """In the order of the run."""
    modified: dict[int, Call] = field(default_factory=dict[int, Call])
    """By index: the call as the policies left it, where they changed it."""
    halt: Stop | None = None
    """Where a real run would have been halted: at its first denial."""
    held: Stop | None = None
    """Where a person would have been asked first, if that is before the halt."""


class _JudgedRun(Run):
    """What policies are shown of a recorded run. Only that: it has no journal, no clock, no latch."""

    def __init__(self, history: History, hooks: Hooks, catalog: Catalog) -> None:
        # Not the initializer of a run that is driven: its parts would cost more than the judging of ten calls.
        self.execution_id = history.name
        self.agent_name = history.agent
        self.task = history.task
        self.principal = history.principal
        self.hooks = hooks
        self.catalog = catalog
        self._memories = {}
        self._lock = _LOCK


class Rejudge:
    """Judges runs by one set of policies. Holds no state of a run: one object judges any number of them.

    Args:
        policies: Policies or their names, as `Orchestrator` takes them.
        policy_timeout_s: Seconds one policy may take for one answer, > 0.

    Raises:
        ConfigError: A policy is unknown or unusable.
    """

    def __init__(self, policies: Sequence[object | str], *, policy_timeout_s: float = 5.0) -> None:
        self._manager, self.policies = make_manager(policies)
        self._hooks = Hooks.of(
            self._manager,
            decide=hook_names()["decide"],
            observe=(),
            timeout_s=policy_timeout_s,
            undecided=self._manager.undecided,
        )
        self._timeout_s = policy_timeout_s
        self.catalog = Catalog(self._manager)
        self._limits = NamedLimits(self._manager)
        self._impls = {hook: self._plain(hook, order) for hook, order in _ORDERS.items()}
        self._slow = {
            hook for hook in self._impls if any(inspect.iscoroutinefunction(one[0]) for one in self._impls[hook])
        }

    def _plain(self, hook: str, order: tuple[str, ...]) -> tuple[_Impl, ...]:
        return tuple(
            (impl.function, None if impl.argnames == order else tuple(map(order.index, impl.argnames)), impl)
            for impl in self._hooks.get(hook)
        )

    def hears(self, hook: str) -> bool:
        """Return True where a policy implements a hook."""
        return self._hooks.heard(hook)

    @property
    def limits(self) -> Limits:
        """The limits that hold for a run that nothing is known of."""
        return self._open(History(name="", agent="")).limits

    def _open(self, history: History) -> _JudgedRun:
        run = _JudgedRun(history, self._hooks, self.catalog)
        # Plugins that name limits may look at what the run may spend.
        run.budget = _UNLIMITED
        run.budget = Budget(self._limits.of(run), self.catalog.price)
        return run

    def judge(self, prepared: Prepared, judge: int = 0) -> Judged:
        """Judge all calls of a run, in the order in which they began and ended.

        Args:
            prepared: The run.
            judge: Which of those it was prepared for this one is.

        Raises:
            ConfigError: A policy names limits that are none.
        """
        run = self._open(prepared.history)
        judging = _Judging(self, run, prepared, judge)
        token = in_plugin.set(True)
        try:
            return judging.judge()
        finally:
            in_plugin.reset(token)

    def decide_call(self, run: Run, call: Call) -> tuple[Decision, Call]:
        """Return what the policies say to one call, and the call as they left it."""
        found = self._ask(_MODEL if call.kind == "model" else _TOOL, (call, run))
        if found is not None:
            return found, call
        judged = drive(judge_call(run, call, call.id), self._timeout_s)
        return judged.asks[0][0] if judged.asks else judged.decision, judged.call

    def decide_outcome(self, run: Run, call: Call, outcome: Outcome) -> Deny | None:
        """Return the denial of what a call returned, if there is one."""
        found = self._ask(_OUTCOME, (call, outcome, run))
        if found is ALLOWED:
            return None
        if found is None:
            refusal = drive(judge_outcome(run, call, outcome), self._timeout_s)
            return None if refusal is None else refusal[0]
        return as_denial(found, "an outcome can only be allowed or denied")

    def decide_batch(self, run: Run, outcome: Outcome, calls: Sequence[Call], scope: str) -> Deny | Ask | None:
        """Return what stops the calls that one answer asks for together, if anything does.

        Args:
            run: The run.
            outcome: The answer.
            calls: What it asks for, as the policies are handed it.
            scope: Where in the agent the answer was asked for.
        """
        denial = run.budget.refuse_batch(outcome.proposed)
        if denial is not None:
            return denial
        held: Decision = ALLOWED
        asked: list[tuple[str, tuple[object, ...]]] = (
            [(_TOOL, (call, run)) for call in calls] if self._impls[_TOOL] else []
        )
        if self._impls[_BATCH]:
            asked.append((_BATCH, (tuple(calls), run)))
        for hook, values in asked:
            found = self._ask(hook, values)
            if found is None:
                judged = drive(judge_batch(run, outcome.proposed, scope, spends=False), self._timeout_s)
                if judged.denial is not None:
                    return judged.denial[0]
                return judged.held[0][1][0][0] if judged.held else None
            if isinstance(found, Deny):
                return found
            held = found if held is ALLOWED else held
        return held if isinstance(held, Ask) else None

    def _ask(self, hook: str, values: tuple[object, ...]) -> Decision | None:
        """Return the strictest of what plain policies say; None where the gate's own code must ask.

        Args:
            hook: Name of the hook.
            values: What it is handed, in the order of its specification.
        """
        if hook in self._slow:
            return None
        strictest: Decision = ALLOWED
        for function, places, impl in self._impls[hook]:
            began = perf_counter()
            try:
                answer = function(*values) if places is None else function(*[values[place] for place in places])
            except Exception as error:  # noqa: BLE001 - fail closed
                answer = denial_for(impl, hook, error, self._timeout_s)
            except (CancelledError, GeneratorExit, RunHalted) as error:
                own = error if isinstance(error, RunHalted) else RuntimeError(error_line(error))
                answer = denial_for(impl, hook, own, self._timeout_s)
            if perf_counter() - began > self._timeout_s:
                answer = too_slow(impl, self._timeout_s)
            if answer is None or answer.__class__ is Allow:
                continue
            if isinstance(answer, Modify) or _awaits(answer):
                # The gate asks again after a change as well: a policy counts a call once, by its id.
                self._slow.add(hook)
                return None
            # After a denial the others are asked all the same: the call counts as let through, so they must see it.
            if strictest is ALLOWED or strictest.verdict != "deny":
                call = values[0]
                found = checked(impl, answer, {"call": call} if isinstance(call, ModelCall | ToolCall) else {})
                if strictest is ALLOWED or isinstance(found, Deny):
                    strictest = found
        return strictest


class _Judging:
    """The judging of one run."""

    def __init__(self, judge: Rejudge, run: _JudgedRun, prepared: Prepared, which: int) -> None:
        self._judge = judge
        self._run = run
        self._prepared = prepared
        self._which = which
        self._calls = prepared.calls[which]
        self._sent = prepared.sent
        self._budget = run.budget
        self._holds: dict[int, Hold] = {}
        self._is_overspent = False
        self._timeout_s = run.hooks.timeout_s
        self._redacts = judge.hears("oao_redact_result")
        limits = run.budget.limits
        self._judges_batches = (
            judge.hears(_TOOL)
            or judge.hears(_BATCH)
            or bool(limits.tool_limits)
            or limits.max_tool_calls is not None
            or limits.max_steps is not None
        )
        self.found = Judged([ALLOWED] * len(self._calls))

    def judge(self) -> Judged:
        run, judge, history = self._run, self._judge, self._prepared.history
        asks_model, asks_tool, asks_outcome = judge.hears(_MODEL), judge.hears(_TOOL), judge.hears(_OUTCOME)
        if judge.hears("oao_decide_run"):
            self._judge_whole("task", "oao_decide_run", {"run": run})
        for operation, i in self._prepared.operations:
            if operation <= BEGIN_TOOL:
                self._begin(i, asks=asks_model if operation == BEGIN_MODEL else asks_tool)
            elif operation <= END_TOOL:
                self._end(i, asks=asks_outcome, is_tool=operation == END_TOOL)
            elif operation == ABANDON:
                self._budget.settle(self._holds[i], None)
            else:
                denial = self._budget.step()
                if isinstance(denial, Deny):
                    self._budget.totals.framework_steps += 1
                    self._stop(Stop("step", -1, denial), extra=True)
        if history.has_output and judge.hears("oao_decide_output"):
            self._judge_whole("output", "oao_decide_output", {"output": freeze(history.output), "run": run})
        return self.found

    def _begin(self, i: int, *, asks: bool) -> None:
        call, sent = self._calls[i], self._sent[i]
        decision: Decision = ALLOWED
        if asks:
            decision, left = self._judge.decide_call(self._run, call)
            if left is not call:
                self._replace(i, left)
                call = left
        hold = self._budget.reserve(call, sent)
        if isinstance(hold, Deny):
            # A limit that is passed refuses also what a person has approved.
            decision = decision if isinstance(decision, Deny) else hold
            hold = self._budget.force(call, sent)
        self._holds[i] = hold
        if decision is not ALLOWED:
            found = self.found
            found.decisions[i] = decision
            if found.halt is None and isinstance(decision, Deny | Ask):
                self._stop(Stop("call", i, decision))

    def _end(self, i: int, *, asks: bool, is_tool: bool) -> None:
        outcome = cast("Outcome", self._prepared.outcomes[i])
        overspent = self._budget.settle(self._holds[i], outcome.usage)
        if overspent is not None and not self._is_overspent:
            # Every call after it spends more than nothing: said once.
            self._is_overspent = True
            self._stop(Stop("outcome", i, overspent), extra=True)
        if is_tool and self._redacts:
            outcome = self._redacted(i, outcome)
        if asks:
            refusal = self._judge.decide_outcome(self._run, self._calls[i], outcome)
            if refusal is not None:
                self._stop(Stop("outcome", i, refusal), extra=True)
        if outcome.proposed and self._judges_batches:
            self._judge_batch(i, outcome)

    def _stop(self, stop: Stop, *, extra: bool = False) -> None:
        found = self.found
        if extra:
            found.stops.append(stop)
        if isinstance(stop.decision, Deny):
            found.halt = found.halt or stop
        elif found.held is None and found.halt is None:
            found.held = stop

    def _replace(self, i: int, call: Call) -> None:
        """Keep a call as the policies left it; the prepared list is for all who judge."""
        self.found.modified[i] = call
        self._calls = list(self._calls)
        self._calls[i] = call

    def _judge_whole(self, stage: Stage, hook: str, arguments: dict[str, object]) -> None:
        decision = drive(decide(self._run.hooks, hook, arguments), self._timeout_s)
        if not isinstance(decision, Allow):
            self._stop(Stop(stage, -1, as_denial(decision, "can only be allowed or denied here")), extra=True)

    def _redacted(self, i: int, outcome: Outcome) -> Outcome:
        error = outcome.error
        given: Json = outcome.value if error is None else {"message": error.message, "data": error.data}
        value, refusal = drive(redacted(self._run, self._calls[i], given), self._timeout_s)
        if refusal is not None:
            self._stop(Stop("outcome", i, refusal[0]), extra=True)
            return replace(outcome, value=None)
        if error is None:
            return outcome if value is outcome.value else replace(outcome, value=freeze(value))
        left: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        return replace(outcome, error=replace(error, message=str(left.get("message")), data=left.get("data") or {}))

    def _judge_batch(self, i: int, outcome: Outcome) -> None:
        calls = self._prepared.proposed[i][self._which]
        found = self._judge.decide_batch(self._run, outcome, calls, self._calls[i].scope)
        if found is not None:
            self._stop(Stop("batch", i, found), extra=True)


def _awaits(answer: object) -> bool:
    """Return True for an answer that must be awaited; it is given up, and asked for again by who can await."""
    if isinstance(answer, _DECISIONS) or not inspect.isawaitable(answer):
        return False
    if inspect.iscoroutine(answer):
        answer.close()
    return True
