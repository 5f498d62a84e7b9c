"""Who has a say over a call: the policies and budgets of its run, and of every run that it is nested in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from oao_harness.errors import PolicyViolation
from oao_harness.journal.codec import alike
from oao_harness.runtime.dispatch import ALLOWED, Steps, decide
from oao_harness.runtime.frozen import freeze_call, freeze_outcome
from oao_harness.runtime.run import Run
from oao_hookspecs import Ask, Call, Decision, Deny, Modify, Outcome, ProposedCall, ToolCall

__all__ = ["judge_batch", "judge_call", "judge_outcome", "require_unchanged", "reserve"]


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
            return _as_denial(decision), member
        if isinstance(decision, Modify):
            call = decision.call
        if strictest is None or isinstance(decision, Modify):
            strictest = decision
    return cast("Decision", strictest), run


def _as_denial(decision: Ask | Deny) -> Deny:
    if isinstance(decision, Deny):
        return decision
    reason = f"{decision.reason} (held for approval, and nobody can be asked here)"
    return Deny(rule=decision.rule, plugin=decision.plugin, reason=reason)


def reserve(run: Run, call: Call) -> tuple[tuple[int, ...], Deny | None, Run]:
    """Reserve in every budget of the lineage, or in none.

    Returns:
        The amounts, for `Budget.settle`; the denial, where a budget refused; and the run whose budget it was.
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
    now = again().request
    # Plain equality first: it is done in C, and nearly always true.
    if call.request != now and not alike(call.request, now):
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
        if isinstance(decision, Deny):
            return decision, member
        if isinstance(decision, Ask | Modify):
            reason = f"{decision.reason or decision.verdict} (an outcome can only be allowed or denied)"
            return Deny(rule=decision.rule or decision.verdict, plugin=decision.plugin, reason=reason), member
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
                return _as_denial(decision), member
    return None
