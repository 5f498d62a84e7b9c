"""Who has a say over a call: the policies and budgets of its run, and of every run that it is nested in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from oao_harness.errors import PolicyViolation
from oao_harness.journal.codec import alike
from oao_harness.runtime.approvals import Asked
from oao_harness.runtime.budget import Hold
from oao_harness.runtime.dispatch import ALLOWED, Steps, decide, decisions, redact
from oao_harness.runtime.frozen import freeze_call, freeze_outcome
from oao_harness.runtime.run import Run
from oao_harness.runtime.shared_budget import SharedBudget, SharedHold
from oao_hookspecs import (
    Allow,
    Ask,
    Call,
    Decision,
    Deny,
    Json,
    ModelCall,
    Modify,
    Outcome,
    Price,
    ProposedCall,
    ToolCall,
    Usage,
    combine,
)

__all__ = [
    "NOTHING",
    "BatchJudgement",
    "Judgement",
    "Reservation",
    "as_denial",
    "is_unjudged",
    "judge_batch",
    "judge_call",
    "judge_outcome",
    "redacted",
    "release",
    "require_unchanged",
    "reserve",
    "settle",
]

# Two policies that undo each other's change would ask each other for ever.
_MOST_ROUNDS: Final = 8
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the policies said about one call."""

    decision: Decision
    by: Run
    """The run whose policy made the decision."""
    call: Call
    """As the policies left it."""
    asks: tuple[Asked, ...] = ()
    """What a person must answer before the call may happen."""


def _hook_of(call: Call) -> str:
    return "oao_decide_model_call" if call.kind == "model" else "oao_decide_tool_call"


def is_unjudged(run: Run, call: Call) -> bool:
    """Return True where no policy of the run, or of one that it is nested in, cares for calls of this kind."""
    hook = _hook_of(call)
    if run.parent is None:
        return not run.hooks.heard(hook)
    return not any(member.hooks.heard(hook) for member in run.lineage)


def judge_call(run: Run, call: Call, unique: str) -> Steps[Judgement]:
    """Ask the policies of the run, then those of the runs it is nested in; the first denial ends it.

    Where a policy modifies the call, all are asked again about the new one, until nobody changes it any more: what
    runs is what every policy judged.

    Args:
        run: The run that makes the call.
        call: What the agent asks for.
        unique: Id of the call.
    """
    hook = _hook_of(call)
    shown = freeze_call(call, unique=unique)
    modified: Decision | None = None
    for _ in range(_MOST_ROUNDS):
        before = shown
        answers: list[tuple[Decision, Run]] = []
        for member in run.lineage:
            arguments: dict[str, object] = {"call": shown, "run": member}
            for decision in (yield from decisions(member.hooks, hook, arguments)):
                if isinstance(decision, Deny):
                    return Judgement(decision, member, shown)
                answers.append((decision, member))
            shown = cast("Call", arguments["call"])
        changes = [decision.call for decision, _ in answers if isinstance(decision, Modify)]
        if all(alike(change.request, before.request) for change in changes):
            asks = tuple((decision, member) for decision, member in answers if isinstance(decision, Ask))
            strictest = combine(decision for decision, _ in answers) if answers else ALLOWED
            if not asks and modified is not None:
                strictest = modified
            return Judgement(strictest, run, call if modified is None else before, asks)
        modified = next(decision for decision, _ in reversed(answers) if isinstance(decision, Modify))
    reason = f"{call.kind} {call.name}: after {_MOST_ROUNDS} rounds policies still modify it; they undo each other"
    return Judgement(Deny(rule="policy-error", plugin="oao", reason=reason), run, shown)


def as_denial(decision: Decision, why: str) -> Deny:
    """Return a decision that cannot be followed where it was made as the denial that it comes to.

    Args:
        decision: A denial is returned as it is.
        why: What cannot be done with any other, for a person.
    """
    if isinstance(decision, Deny):
        return decision
    reason = f"{decision.reason or decision.verdict} ({why})"
    return Deny(rule=decision.rule or decision.verdict, plugin=decision.plugin, reason=reason, source=decision.source)


class Reservation(NamedTuple):
    """What one call has reserved: in the budgets of its lineage, and in those that other processes share."""

    own: tuple[Hold, ...] = ()
    shared: tuple[tuple[SharedBudget, SharedHold, Run], ...] = ()


NOTHING: Final = Reservation()


def reserve(run: Run, call: Call, *, spends: bool) -> tuple[Reservation, Deny | None, Run]:
    """Reserve in every budget of the lineage and in every budget they share with other processes, or in none.

    Args:
        run: The run that makes the call.
        call: As it was judged.
        spends: False where a recorded outcome is served: what was spent when it was recorded is not spent again, so
            budgets that outlive the run are left alone.

    Returns:
        What `settle` needs; the denial, where a budget refused; and the run whose budget it was.
    """
    if run.parent is None and run.shared is None and run.tree is None:
        only = run.budget.reserve(call)
        return (NOTHING, only, run) if isinstance(only, Deny) else (Reservation((only,)), None, run)
    taken: list[Hold] = []
    shared: list[tuple[SharedBudget, SharedHold, Run]] = []
    denial: Deny | None = None
    by = run
    for member in run.lineage:
        hold = member.budget.reserve(call)
        if isinstance(hold, Deny):
            denial, by = hold, member
            break
        taken.append(hold)
    if denial is None and spends:
        for budget, member in run.shared_budgets:
            found = budget.reserve(call, _price(member, budget, call))
            if isinstance(found, Deny):
                denial, by = found, member
                break
            shared.append((budget, found, member))
    if denial is None:
        return Reservation(tuple(taken), tuple(shared)), None, run
    release(run, call, Reservation(tuple(taken), tuple(shared)))
    return NOTHING, denial, by


def release(run: Run, call: Call, reserved: Reservation) -> None:
    """Give back what `reserve` took for a call that will not happen."""
    for member, hold in zip(run.lineage, reserved.own, strict=False):
        member.budget.release(call, hold)
    for budget, held, _ in reserved.shared:
        budget.release(held)


def _price(run: Run, budget: SharedBudget, call: Call) -> Price | None:
    if budget.limits.max_cost_usd is None or run.catalog is None or not isinstance(call, ModelCall):
        return None
    return run.catalog.price(call)


def settle(run: Run, reserved: Reservation, usage: Usage | None) -> tuple[Deny, Run] | None:
    """Exchange what `reserve` took for what was used.

    Returns:
        The first denial where that is too much, and the run whose budget it was.
    """
    if run.parent is None and not reserved.shared:
        denial = run.budget.settle(reserved.own[0], usage) if reserved.own else None
        return None if denial is None else (denial, run)
    overspent: tuple[Deny, Run] | None = None
    for member, amount in zip(run.lineage, reserved.own, strict=False):
        denial = member.budget.settle(amount, usage)
        if denial is not None and overspent is None:
            overspent = (denial, member)
    for budget, hold, member in reserved.shared:
        denial = budget.settle(hold, usage)
        if denial is not None and overspent is None:
            overspent = (denial, member)
    return overspent


def require_unchanged(call: Call, again: Callable[[], Call]) -> None:
    """Refuse a call whose arguments were changed while they were judged: what runs is what was judged.

    Args:
        call: As it was judged and journaled.
        again: Describes the same call from the arguments that its body is about to get.

    Raises:
        PolicyViolation: They differ.
    """
    if _SCALARS.issuperset(map(type, call.request.values())):
        return
    # Not by plain equality: for that, 1 and True are the same.
    if not alike(call.request, again().request):
        reason = f"{call.kind} {call.name}: its arguments changed after they were judged; hand it copies"
        raise PolicyViolation(reason, rule="changed-after-judging", plugin="oao")


def judge_outcome(run: Run, call: Call, outcome: Outcome) -> Steps[tuple[Deny, Run] | None]:
    """Ask the policies about what a call returned; return the denial and the run whose policy made it."""
    shown: dict[str, object] = {}
    for member in run.lineage:
        if not member.hooks.heard("oao_decide_outcome"):
            continue
        shown = shown or {"call": freeze_call(call), "outcome": freeze_outcome(outcome)}
        arguments: dict[str, object] = {**shown, "run": member}
        decision = yield from decide(member.hooks, "oao_decide_outcome", arguments)
        if not isinstance(decision, Allow):
            return as_denial(decision, "an outcome can only be allowed or denied"), member
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJudgement:
    """What the policies said about the tool calls of one answer."""

    denial: tuple[Deny, Run] | None = None
    held: tuple[tuple[Call, tuple[Asked, ...]], ...] = ()
    """The calls that a person must be asked about, and what."""


def judge_batch(run: Run, batch: Sequence[ProposedCall], scope: str, *, spends: bool) -> Steps[BatchJudgement]:
    """Judge the tool calls of one answer together, before any of them starts.

    A lone call is judged where it runs; only siblings make it a matter of chance which of them ran before the denial.

    Args:
        run: The run.
        batch: The calls in the order of the answer.
        scope: Where in the agent the answer was asked for.
        spends: See `reserve`.
    """
    calls = [
        freeze_call(
            run.described(
                ToolCall(name=one.name, arguments=one.arguments, call_id=one.call_id, proposed=True, scope=scope)
            )
        )
        for one in batch
    ]
    asked: dict[int, list[Asked]] = {}
    for member in run.lineage:
        denial = member.budget.refuse_batch(batch)
        if denial is not None:
            return BatchJudgement(denial=(denial, member))
        for budget, by in run.shared_budgets if member is run and spends else ():
            denial = budget.refuse_batch(batch)
            if denial is not None:
                return BatchJudgement(denial=(denial, by))
        for index, call in enumerate(calls):
            shown: dict[str, object] = {"call": call, "run": member}
            for decision in (yield from decisions(member.hooks, "oao_decide_tool_call", shown)):
                if isinstance(decision, Deny):
                    return BatchJudgement(denial=(decision, member))
                if isinstance(decision, Ask):
                    asked.setdefault(index, []).append((decision, member))
            calls[index] = cast("Call", shown["call"])
        together: dict[str, object] = {"calls": tuple(calls), "run": member}
        for decision in (yield from decisions(member.hooks, "oao_decide_batch", together)):
            if isinstance(decision, Ask):
                # Which of the siblings it means is the policy's secret: each of them waits.
                for index in range(len(calls)):
                    asked.setdefault(index, []).append((decision, member))
            elif not isinstance(decision, Allow):
                return BatchJudgement(denial=(as_denial(decision, "a batch cannot be modified"), member))
    return BatchJudgement(held=tuple((calls[index], tuple(asked[index])) for index in sorted(asked)))


def redacted(run: Run, call: Call, value: Json) -> Steps[tuple[Json, tuple[Deny, Run] | None]]:
    """Return what every redactor left of a tool's result, and the denial where one failed and whose it was."""
    for member in run.lineage:
        found = yield from redact(member.hooks, freeze_call(call), value, member)
        if isinstance(found, Deny):
            return None, (found, member)
        value = found
    return value, None
