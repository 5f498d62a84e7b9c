"""Who has a say over a call: the policies and budgets of its run, and of every run that it is nested in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, cast

from oao_harness.errors import PolicyViolation
from oao_harness.journal.codec import alike
from oao_harness.runtime.dispatch import ALLOWED, Steps, decide
from oao_harness.runtime.frozen import freeze_call, freeze_outcome
from oao_harness.runtime.run import Run
from oao_hookspecs import Allow, Ask, Call, Decision, Deny, Modify, Outcome, ProposedCall, ToolCall, Usage

__all__ = ["as_denial", "judge_batch", "judge_call", "judge_outcome", "require_unchanged", "reserve", "settle"]

_NOBODY: Final = "held for approval, and nobody can be asked here"


def judge_call(run: Run, call: Call) -> Steps[tuple[Decision, Run]]:
    """Ask the policies of the run, then those of the runs it is nested in; the first denial ends it.

    Returns:
        The decision, and the run whose policy made it. A question that nobody can be asked is a denial.
    """
    hook = "oao_decide_model_call" if call.kind == "model" else "oao_decide_tool_call"
    if len(run.lineage) == 1 and not run.hooks.heard(hook):
        return ALLOWED, run
    call = freeze_call(call)
    strictest: Decision | None = None
    for member in run.lineage:
        decision = yield from decide(member.hooks, hook, {"call": call, "run": member})
        if isinstance(decision, Ask | Deny):
            return as_denial(decision, _NOBODY), member
        if isinstance(decision, Modify):
            call = decision.call
        if strictest is None or isinstance(decision, Modify):
            strictest = decision
    return cast("Decision", strictest), run


def as_denial(decision: Decision, why: str) -> Deny:
    """Return a decision that cannot be followed where it was made as the denial that it comes to.

    Args:
        decision: A denial is returned as it is.
        why: What cannot be done with any other, for a person.
    """
    if isinstance(decision, Deny):
        return decision
    reason = f"{decision.reason or decision.verdict} ({why})"
    return Deny(rule=decision.rule or decision.verdict, plugin=decision.plugin, reason=reason)


def reserve(run: Run, call: Call) -> tuple[tuple[int, ...], Deny | None, Run]:
    """Reserve in every budget of the lineage, or in none.

    Returns:
        The amounts, for `settle`; the denial, where a budget refused; and the run whose budget it was.
    """
    taken: list[int] = []
    for member in run.lineage:
        amount = member.budget.reserve(call)
        if isinstance(amount, Deny):
            for earlier, reserved in zip(run.lineage, taken, strict=False):
                earlier.budget.release(call, reserved)
            return (), amount, member
        taken.append(amount)
    return tuple(taken), None, run


def settle(run: Run, reserved: Sequence[int], usage: Usage | None) -> tuple[Deny, Run] | None:
    """Exchange what `reserve` took for what was used.

    Returns:
        The first denial where that is too much, and the run whose budget it was.
    """
    overspent: tuple[Deny, Run] | None = None
    for member, amount in zip(run.lineage, reserved, strict=False):
        denial = member.budget.settle(amount, usage)
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
    if all(isinstance(item, str | int | float) or item is None for item in call.request.values()):
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


def judge_batch(run: Run, batch: Sequence[ProposedCall]) -> Steps[tuple[Deny, Run] | None]:
    """Judge the tool calls of one answer together, before any of them starts.

    A lone call is judged where it runs; only siblings make it a matter of chance which of them ran before the denial.
    """
    for member in run.lineage:
        denial = member.budget.refuse_batch(batch)
        if denial is not None:
            return denial, member
        for proposed in batch:
            if not member.hooks.heard("oao_decide_tool_call"):
                break
            call = ToolCall(name=proposed.name, arguments=proposed.arguments, call_id=proposed.call_id, proposed=True)
            shown: dict[str, object] = {"call": freeze_call(call), "run": member}
            decision = yield from decide(member.hooks, "oao_decide_tool_call", shown)
            if isinstance(decision, Ask | Deny):
                return as_denial(decision, _NOBODY), member
    return None
