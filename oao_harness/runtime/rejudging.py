"""Judges recorded calls again, as the gate would have with their history; runs nothing, halts nothing.

What the gate does for a call is done in the same order with the same parts: policies, budget, settlement, outcome,
batch. Only what a denial does differs: the call is counted as if it had been let through, so that every call is
judged. Plain policies are asked without the gate's generators, which is what makes this fast; one that awaits, or
modifies calls, is asked by the gate's own code.

Not judged is what recorded calls do not tell: time limits, what happens beside the gate, budgets shared with others.
"""

from __future__ import annotations

import inspect
from asyncio import CancelledError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias, cast

from oao_harness.errors import ConfigError
from oao_harness.journal.codec import error_line
from oao_harness.journal.histories import History
from oao_harness.plugins.manager import hook_names, make_manager, undecided
from oao_harness.runtime.budget import Budget, Hold
from oao_harness.runtime.catalog import Catalog
from oao_harness.runtime.clock import SystemClock
from oao_harness.runtime.context import in_plugin
from oao_harness.runtime.dispatch import ALLOWED, HookImpl, Hooks, checked, decide, denial_for, drive, too_slow
from oao_harness.runtime.frozen import freeze, freeze_call, freeze_outcome
from oao_harness.runtime.judging import as_denial, judge_batch, judge_call, judge_outcome, redacted
from oao_harness.runtime.limits import named_limits, tightest
from oao_harness.runtime.run import Run
from oao_harness.runtime.usage import count_characters, tokens_of_characters
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
    Store,
    ToolCall,
)

__all__ = ["NOT_JUDGED", "Judged", "Prepared", "Rejudge", "Stage", "Stop", "prepare"]

Stage: TypeAlias = Literal["task", "call", "outcome", "batch", "step", "output"]
"""Where in a run something is refused or held: the task as a whole, a call before it is made, what it returned, the
calls that an answer asks for together, a step of the agent's framework, the run's output."""

NOT_JUDGED: Final = ("timeout_s", "call_timeout_s", "require_governed", "process_tools")
"""The limits that nobody can judge from recorded calls."""

_MODEL: Final = "oao_decide_model_call"
_TOOL: Final = "oao_decide_tool_call"
_OUTCOME: Final = "oao_decide_outcome"
_BATCH: Final = "oao_decide_batch"
_IN_ORDER: Final = ("call", "run")
_ENDED_IN_ORDER: Final = ("call", "outcome", "run")
_DECISIONS: Final = (Allow, Deny, Ask, Modify)
_BEGIN, _END, _STEP = 0, 1, 2
_OPERATIONS: Final = {"begin": _BEGIN, "end": _END, "step": _STEP}

_Impl: TypeAlias = tuple[Any, bool, HookImpl]
"""The function, whether it takes everything in the usual order, and whose it is."""


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


@dataclass(slots=True)
class Prepared:
    """A history in the form that policies are handed: frozen, once for all who judge it."""

    history: History
    operations: list[tuple[int, int]]
    calls: list[list[Call]]
    """For each judge the calls, with what is declared about their tools."""
    outcomes: list[Outcome | None]
    sent: list[int | None]
    """About how many tokens each request has, where somebody limits that."""


class _NoStore:
    """Stands where a run keeps its journal: what is judged again is not journaled."""

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(f"a run that is only judged has no journal ({name})")


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
            undecided=undecided(()),
        )
        self._timeout_s = policy_timeout_s
        self.catalog = Catalog(self._manager)
        self._clock = SystemClock()
        self._store = cast("Store", _NoStore())
        self._impls = {
            _MODEL: self._plain(_MODEL, _IN_ORDER),
            _TOOL: self._plain(_TOOL, _IN_ORDER),
            _OUTCOME: self._plain(_OUTCOME, _ENDED_IN_ORDER),
        }
        self._slow = {
            hook for hook in self._impls if any(inspect.iscoroutinefunction(one[0]) for one in self._impls[hook])
        }
        self._named: tuple[list[Limits], Limits] | None = None

    def _plain(self, hook: str, order: tuple[str, ...]) -> tuple[_Impl, ...]:
        return tuple((impl.function, impl.argnames == order, impl) for impl in self._hooks.get(hook))

    def hears(self, hook: str) -> bool:
        """Return True where a policy implements a hook."""
        return self._hooks.heard(hook)

    @property
    def limits(self) -> Limits:
        """The limits that hold for the last run that was judged, or for a run of nobody where none was."""
        if self._named is None:
            self._open(History(name="", agent=""))
        return self._named[1] if self._named is not None else Limits()

    def _open(self, history: History) -> Run:
        run = Run(
            execution_id=history.name,
            agent_name=history.agent,
            task=history.task,
            hooks=self._hooks,
            clock=self._clock,
            store=self._store,
            principal=history.principal,
        )
        run.catalog = self.catalog
        named = named_limits(self._manager, run)
        if self._named is None or self._named[0] != named:
            self._named = named, tightest(named)
        run.budget = Budget(self._named[1], self.catalog.price)
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
        judging = _Judging(self, run, prepared, prepared.calls[judge])
        token = in_plugin.set(True)
        try:
            return judging.judge()
        finally:
            in_plugin.reset(token)

    def decide_call(self, run: Run, call: Call) -> tuple[Decision, Call]:
        """Return what the policies say to one call, and the call as they left it."""
        hook = _MODEL if call.kind == "model" else _TOOL
        if hook not in self._slow:
            strictest: Decision = ALLOWED
            for function, in_order, impl in self._impls[hook]:
                began = perf_counter()
                try:
                    answer = (
                        function(call, run)
                        if in_order
                        else function(*[{"call": call, "run": run}[name] for name in impl.argnames])
                    )
                except Exception as error:  # noqa: BLE001 - fail closed
                    return denial_for(impl, hook, error, self._timeout_s), call
                except (CancelledError, GeneratorExit) as error:
                    return denial_for(impl, hook, RuntimeError(error_line(error)), self._timeout_s), call
                if perf_counter() - began > self._timeout_s:
                    return too_slow(impl, self._timeout_s), call
                if answer is None or type(answer) is Allow:
                    continue
                if isinstance(answer, Modify) or _awaits(answer):
                    # The gate asks again after a change as well: a policy counts a call once, by its id.
                    self._slow.add(hook)
                    break
                answer = checked(impl, answer, {"call": call})
                if isinstance(answer, Deny):
                    return answer, call
                if strictest is ALLOWED:
                    strictest = answer
            else:
                return strictest, call
        judged = drive(judge_call(run, call, call.id), self._timeout_s)
        return judged.asks[0][0] if judged.asks else judged.decision, judged.call

    def decide_outcome(self, run: Run, call: Call, outcome: Outcome) -> Deny | None:
        """Return the denial of what a call returned, if there is one."""
        if _OUTCOME not in self._slow:
            for function, in_order, impl in self._impls[_OUTCOME]:
                began = perf_counter()
                try:
                    answer = (
                        function(call, outcome, run)
                        if in_order
                        else function(*[{"call": call, "outcome": outcome, "run": run}[name] for name in impl.argnames])
                    )
                except Exception as error:  # noqa: BLE001 - fail closed
                    return denial_for(impl, _OUTCOME, error, self._timeout_s)
                except (CancelledError, GeneratorExit) as error:
                    return denial_for(impl, _OUTCOME, RuntimeError(error_line(error)), self._timeout_s)
                if perf_counter() - began > self._timeout_s:
                    return too_slow(impl, self._timeout_s)
                if answer is None or type(answer) is Allow:
                    continue
                if _awaits(answer):
                    self._slow.add(_OUTCOME)
                    break
                return as_denial(checked(impl, answer, {"call": call}), "an outcome can only be allowed or denied")
            else:
                return None
        refusal = drive(judge_outcome(run, call, outcome), self._timeout_s)
        return None if refusal is None else refusal[0]


class _Judging:
    """The judging of one run."""

    __slots__ = ("_calls", "_holds", "_judge", "_prepared", "_run", "_timeout_s", "found")

    def __init__(self, judge: Rejudge, run: Run, prepared: Prepared, calls: list[Call]) -> None:
        self._judge = judge
        self._run = run
        self._prepared = prepared
        self._calls = calls
        self._holds: dict[int, Hold] = {}
        self._timeout_s = run.hooks.timeout_s
        self.found = Judged([ALLOWED] * len(calls))

    def judge(self) -> Judged:
        run, judge, found = self._run, self._judge, self.found
        calls, decisions, holds, budget = self._calls, found.decisions, self._holds, run.budget
        sent, outcomes = self._prepared.sent, self._prepared.outcomes
        history = self._prepared.history
        asks_model, asks_tool = judge.hears(_MODEL), judge.hears(_TOOL)
        asks_outcome, redacts = judge.hears(_OUTCOME), judge.hears("oao_redact_result")
        if judge.hears("oao_decide_run"):
            self._judge_whole("task", "oao_decide_run", {"run": run})
        for operation, i in self._prepared.operations:
            if operation == _BEGIN:
                call = calls[i]
                decision: Decision = ALLOWED
                if asks_model if call.kind == "model" else asks_tool:
                    decision, left = judge.decide_call(run, call)
                    if left is not call:
                        calls = self._replaced(i, left)
                        call = left
                hold = budget.reserve(call, sent[i])
                if isinstance(hold, Deny):
                    # A limit that is passed refuses also what a person has approved.
                    decision = decision if isinstance(decision, Deny) else hold
                    hold = budget.force(call, sent[i])
                holds[i] = hold
                if decision is not ALLOWED:
                    decisions[i] = decision
                    if isinstance(decision, Deny | Ask):
                        self._stop(Stop("call", i, decision))
            elif operation == _END:
                outcome = outcomes[i]
                if outcome is None:
                    continue
                abandoned = history.calls[i].abandoned
                overspent = budget.settle(holds[i], None if abandoned else outcome.usage)
                if abandoned:
                    continue
                if overspent is not None:
                    self._stop(Stop("outcome", i, overspent), extra=True)
                call = calls[i]
                if redacts and call.kind == "tool":
                    outcome = self._redacted(i, outcome)
                if asks_outcome:
                    refusal = judge.decide_outcome(run, call, outcome)
                    if refusal is not None:
                        self._stop(Stop("outcome", i, refusal), extra=True)
                if len(outcome.proposed) > 1:
                    self._judge_batch(i, outcome)
            else:
                denial = budget.step()
                if isinstance(denial, Deny):
                    budget.totals.framework_steps += 1
                    self._stop(Stop("step", -1, denial), extra=True)
        if history.has_output and judge.hears("oao_decide_output"):
            self._judge_whole("output", "oao_decide_output", {"output": freeze(history.output), "run": run})
        return found

    def _stop(self, stop: Stop, *, extra: bool = False) -> None:
        found = self.found
        if extra:
            found.stops.append(stop)
        if isinstance(stop.decision, Deny):
            found.halt = found.halt or stop
        elif found.held is None and found.halt is None:
            found.held = stop

    def _replaced(self, i: int, call: Call) -> list[Call]:
        """Keep a call as the policies left it; the prepared list is for all who judge."""
        self.found.modified[i] = call
        self._calls = list(self._calls)
        self._calls[i] = call
        return self._calls

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
        run, hooks = self._run, self._run.hooks
        limits = run.limits
        if not (hooks.heard(_TOOL) or hooks.heard(_BATCH) or limits.tool_limits) and (
            limits.max_tool_calls is None and limits.max_steps is None
        ):
            return
        judged = drive(judge_batch(run, outcome.proposed, self._calls[i].scope, spends=False), self._timeout_s)
        if judged.denial is not None:
            self._stop(Stop("batch", i, judged.denial[0]), extra=True)
        elif judged.held:
            self._stop(Stop("batch", i, judged.held[0][1][0][0]), extra=True)


def _awaits(answer: object) -> bool:
    """Return True for an answer that must be awaited; it is given up, and asked for again by who can await."""
    if isinstance(answer, _DECISIONS) or not inspect.isawaitable(answer):
        return False
    if inspect.iscoroutine(answer):
        answer.close()
    return True


def prepare(history: History, judges: Sequence[Rejudge]) -> Prepared:
    """Return a history as the judges are handed it.

    Args:
        history: A recorded run.
        judges: Who will judge it, in this order.
    """
    shows_models = any(judge.hears(_MODEL) or judge.hears(_OUTCOME) for judge in judges)
    shows_outcomes = any(judge.hears(_OUTCOME) or judge.hears("oao_redact_result") for judge in judges)
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
    described = [
        [_described(call, judge) for call in calls] if judge.catalog.describes else calls for judge in judges
    ]
    operations = [(_OPERATIONS[what], index) for what, index in history.moments]
    return Prepared(history=history, operations=operations, calls=described, outcomes=outcomes, sent=sent)


def _undeclared(call: ToolCall, judges: Sequence[Rejudge]) -> ToolCall:
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


def _described(call: Call, judge: Rejudge) -> Call:
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
