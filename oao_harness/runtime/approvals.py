"""Holds calls for approval: finds the answer in the journal, asks plugins for one, or suspends the run."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, cast

import rfc8785

from oao_harness.errors import RunSuspended
from oao_harness.journal.codec import alike
from oao_harness.journal.questions import Bound, Question, answer_fields, is_entitled, request_fields
from oao_harness.journal.records import request_of
from oao_harness.runtime.context import frame
from oao_harness.runtime.dispatch import Steps, answers, observe
from oao_harness.runtime.frozen import freeze
from oao_harness.runtime.run import Run
from oao_hookspecs import (
    ApprovalAnswer,
    ApprovalAnswered,
    ApprovalRequest,
    ApprovalRequested,
    Approve,
    Ask,
    Call,
    Deny,
    Json,
    Principal,
    ToolCall,
    hookimpl,
)

__all__ = ["Approver", "Asked", "CallbackApprover", "Held", "digest_of", "hold", "suspend", "suspending"]

Asked: TypeAlias = tuple[Ask, Run]
"""What a policy asks, and the run whose policy it is."""

# Source: RFC 8785 builds on I-JSON, which holds whole numbers up to this one exactly.
_EXACT: Final = 2**53 - 1


Approver: TypeAlias = Callable[[ApprovalRequest], "ApprovalAnswer | None | Awaitable[ApprovalAnswer | None]"]
"""Answers a question at once, or with None leaves it to a person."""


class CallbackApprover:
    """A function as the plugin that answers held calls.

    Args:
        approver: The function.
    """

    name = "approver"

    def __init__(self, approver: Approver) -> None:
        self._approver = approver

    @hookimpl
    def oao_answer_approval(self, request: ApprovalRequest) -> ApprovalAnswer | None | Awaitable[ApprovalAnswer | None]:
        """Hand the question on."""
        return self._approver(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the questions about one call came to."""

    denial: tuple[Deny, Run] | None = None
    pending: tuple[Question, ...] = ()
    granted: tuple[Question, ...] = ()
    edited: ToolCall | None = None
    """The call with the arguments that an approval put in place of its own; it must be judged again."""


def digest_of(call: Call, *, agent: str, principal: Principal | None, policy: str) -> str:
    """Return what an approval is bound to: SHA-256 over canonical JSON (RFC 8785), 64 hex digits.

    Args:
        call: The held call.
        agent: Name of the agent.
        principal: Who the run acts for.
        policy: Version of the policies.
    """
    bound: dict[str, Json] = {
        "agent": agent,
        "principal": None if principal is None else [principal.id, *principal.roles, principal.tenant],
        "kind": call.kind,
        "tool": call.name,
        "arguments": request_of(call),
        "policy": policy,
    }
    return hashlib.sha256(rfc8785.dumps(cast("Any", _exact(bound)))).hexdigest()


def _exact(value: Json) -> Json:
    """Return JSON that RFC 8785 can write, and that is equal only for equal values."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {cast("str", _exact(key)): _exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(item) for item in value]
    if isinstance(value, float) or (type(value) is int and abs(value) > _EXACT):
        return {"$number": repr(value)}
    return value


def hold(
    run: Run, call: Call, asks: Sequence[Asked], *, others: set[str] | None = None, n: int | None = None
) -> Steps[Held]:
    """Find or ask for the answers to what policies ask about one call.

    Args:
        run: The run that makes the call; its journal holds the questions.
        call: As the policies left it.
        asks: At least one; each has a question of its own.
        others: Ids of the questions of sibling calls; those of this call are added.
        n: Number of the call; None while it is only proposed.
    """
    others = set() if others is None else others
    policy = "+".join(member.policy_version for member in run.lineage)
    digest = digest_of(call, agent=run.agent_name, principal=run.principal, policy=policy)
    bound = Bound(digest=digest, policy=policy, principal=run.principal)
    granted: list[Question] = []
    pending: list[Question] = []
    for ask, by in asks:
        question = run.questions.find(ask, call, bound, run.clock.time(), others=others, n=n)
        if question is None:
            question = yield from _question(run, ask, call, bound)
        others.add(question.request.id)
        # Used by this very call, before it was interrupted: it may have expired since.
        state = "approved" if question.used else question.state(run.questions.now(run.clock.time()))
        if state == "rejected":
            reason = f"{call.kind} {call.name}: {question.why_rejected()}"
            denial = Deny(rule=ask.rule, plugin=ask.plugin, source=ask.source, reason=reason)
            return Held(denial=(denial, by))
        (granted if state == "approved" else pending).append(question)
    edited = next((question.edited for question in granted if question.edited is not None), None)
    if pending or edited is None or not isinstance(call, ToolCall) or alike(edited, request_of(call)):
        return Held(pending=tuple(pending), granted=tuple(granted))
    return Held(granted=tuple(granted), edited=replace(call, arguments=cast("Any", freeze(edited))))


def _question(run: Run, ask: Ask, call: Call, bound: Bound) -> Steps[Question]:
    """Write a new question, then hear who can answer it at once."""
    now = run.questions.now(run.clock.time())
    question = run.questions.add(
        run.execution_id,
        lambda id_: ApprovalRequest(
            id=id_,
            execution_id=run.execution_id,
            agent_name=run.agent_name,
            tool=call.name,
            kind=call.kind,
            arguments=request_of(call),
            call_id=call.call_id,
            principal=run.principal,
            rule=ask.rule,
            reason=ask.reason,
            source=ask.source,
            digest=bound.digest,
            policy=bound.policy,
            requested_at=now,
            expires_at=now + ask.expires_s,
            approvers=tuple(ask.approvers),
            needed=ask.needed,
        ),
    )
    request = question.request
    run.write("approval.requested", request_fields(request))
    if run.hooks.heard("oao_approval_requested"):
        requested = ApprovalRequested(execution_id=run.execution_id, request=request)
        yield from observe(run.hooks, "oao_approval_requested", {"event": requested, "run": run})
    for member in run.lineage:
        for answer in (yield from answers(member.hooks, request, run)):
            if isinstance(answer, Approve) and (refused := is_entitled(request, answer.by)) is not None:
                run.note_ungoverned(f"an approval of {request.tool} does not count: {refused}")
                continue
            question.answers.append(answer)
            run.write("approval.answered", answer_fields(request, answer))
            if run.hooks.heard("oao_approval_answered"):
                answered = ApprovalAnswered(execution_id=run.execution_id, request=request, answer=answer)
                yield from observe(run.hooks, "oao_approval_answered", {"event": answered, "run": run})
    return question


def suspend(run: Run, pending: Sequence[Question], *, n: int | None) -> Steps[None]:
    """Suspend the run and those it is nested in until somebody answers.

    Args:
        run: The run that made the held call.
        pending: The open questions.
        n: Number of the held call; None where a batch is held.
    """
    first = pending[0].request
    held = f"{first.kind} {first.tool} is held for approval"
    # A policy that has no reason of its own says just that.
    reason = held if first.reason == held else f"{held}: {first.reason}"
    yield from suspending(run, reason, rule=first.rule, n=n)


def suspending(run: Run, reason: str, *, rule: str, n: int | None) -> Steps[None]:
    """Suspend the run and those it is nested in.

    Args:
        run: The run.
        reason: What it waits for.
        rule: Which rule wants that.
        n: Number of the call that is to blame; None for none.
    """
    # The calls whose bodies wait are neither finished nor in doubt, whatever their bodies make of the halt.
    waiting = frame.get()
    while waiting is not None:
        waiting.waits = True
        waiting.run.waiting.append(waiting.n)
        waiting = waiting.outer
    for member in run.lineage:
        if member.lasts and member is not run:
            return
        halt = RunSuspended(reason, rule=rule, plugin="oao", n=n if member is run else None)
        yield from member.halting(halt)
