"""The questions of a run, folded from its journal: which call is held, who answered, and what that comes to. Pure.

```text
approval.requested   id, agent, tool, kind, arguments, call_id, principal, rule, reason, source, digest, policy,
                     requested_at, expires_at, approvers, needed
approval.answered    id, verdict, by [, arguments, note]
```
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from oao_harness.journal.codec import alike
from oao_harness.journal.records import request_of
from oao_hookspecs import ApprovalAnswer, ApprovalRequest, Approve, Ask, Call, Json, Principal, Record, Reject, ToolCall

__all__ = [
    "Bound",
    "Question",
    "Questions",
    "State",
    "answer_fields",
    "is_entitled",
    "principal_from_json",
    "principal_to_json",
    "request_fields",
]

State: TypeAlias = Literal["pending", "approved", "rejected", "expired"]


def is_entitled(request: ApprovalRequest, by: Principal) -> str | None:
    """Return why somebody's answer does not count, or None where it does.

    Args:
        request: The question.
        by: Who answers.
    """
    if request.approvers and not set(request.approvers) & set(by.roles):
        roles = ", ".join(by.roles) or "none"
        return f"{by.id} may not answer: roles {', '.join(request.approvers)} may, {by.id} has {roles}"
    if request.needed > 1 and request.principal is not None and request.principal.id == by.id:
        return f"{by.id} may not answer: the run acts for {by.id}, and {request.needed} other people are needed"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What an approval is bound to."""

    digest: str
    """Of agent, principal, tool, arguments and policy version."""
    policy: str
    principal: Principal | None


@dataclass(slots=True)
class Question:
    """One question, its answers, and whether its approval was used."""

    request: ApprovalRequest
    answers: list[ApprovalAnswer] = field(default_factory=list[ApprovalAnswer])
    used: bool = False
    used_by: int | None = None
    """Number of the call that used the approval: it is good for that call also where it is made once more."""

    def state(self, now: float) -> State:
        """Return where the question stands; an approval of who is not entitled counts for nothing."""
        if any(isinstance(answer, Reject) for answer in self.answers):
            return "rejected"
        if now > self.request.expires_at:
            return "expired"
        return "approved" if self._agreed() else "pending"

    @property
    def edited(self) -> Mapping[str, Json] | None:
        """The arguments that enough people approved in place of those asked about."""
        edits = (approval.arguments for approval in reversed(self._agreed()))
        return next((arguments for arguments in edits if arguments is not None), None)

    def last_by(self, person: str) -> ApprovalAnswer | None:
        """Return what somebody answered last: a second approval with other arguments replaces the first."""
        return next((answer for answer in reversed(self.answers) if answer.by.id == person), None)

    def approves_same(self, one: Approve, other: Approve) -> bool:
        """Return True where two approvals let the same arguments pass."""
        asked = self.request.arguments
        first, second = (asked if given.arguments is None else given.arguments for given in (one, other))
        return alike(dict(first), dict(second))

    def _agreed(self) -> list[Approve]:
        """Return the approvals for whose arguments enough people are: what one of them edited, the others must see."""
        latest = [
            answer
            for answer in self.answers
            if isinstance(answer, Approve)
            and answer is self.last_by(answer.by.id)
            and is_entitled(self.request, answer.by) is None
        ]
        return [one for one in latest if sum(self.approves_same(one, other) for other in latest) >= self.request.needed]

    def why_rejected(self) -> str:
        """Return who rejected it and why, for the report."""
        answer = next(answer for answer in self.answers if isinstance(answer, Reject))
        return f"rejected by {answer.by.id}{f': {answer.note}' if answer.note else ''}"

    def is_about(self, ask: Ask, call: Call, bound: Bound) -> bool:
        """Return True where the answers to this question are answers for that call.

        A question that was asked when a model proposed the call holds for the call with the same id whose
        arguments are the proposed ones; a tool's own defaults may have been added.
        """
        request = self.request
        if (request.rule, request.kind, request.tool) != (ask.rule, call.kind, call.name):
            return False
        # Two policies may give their rules one name; whom they ask must be the same to be one question.
        if (request.approvers, request.needed) != (tuple(ask.approvers), ask.needed):
            return False
        if (request.policy, request.principal) != (bound.policy, bound.principal):
            return False
        # The digest writes every value as text, which two values may share.
        if request.digest == bound.digest and alike(dict(request.arguments), request_of(call)):
            return True
        if self.edited is not None and alike(self.edited, request_of(call)):
            return True
        if request.call_id is None or request.call_id != call.call_id or not isinstance(call, ToolCall):
            return False
        given = {key: value for key, value in call.arguments.items() if key in request.arguments}
        added = set(call.arguments) - set(request.arguments)
        return alike(dict(request.arguments), given) and added <= set(call.defaulted)


class Questions:
    """All questions of one run, from its journal and from now on. Atomic: an approval is used once.

    Args:
        records: The run's journal so far.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._lock = threading.Lock()
        self._questions: dict[str, Question] = {}
        self._latest = 0.0
        for record in records:
            self._add(record)

    def _add(self, record: Record) -> None:
        self._latest = max(self._latest, cast("float", record["at"]))
        if record["type"] == "approval.requested":
            request = _request_from(record)
            self._questions[request.id] = Question(request)
        elif record["type"] == "approval.answered":
            question = self._questions.get(str(record["id"]))
            if question is not None:
                question.answers.append(_answer_from(record))
        elif record["type"] == "call":
            for used in cast("list[str]", record.get("approvals") or ()):
                if used in self._questions:
                    self._questions[used].used = True
                    self._questions[used].used_by = cast("int", record["n"])

    def now(self, time: float) -> float:
        """Return the time, but never before the newest record: a clock that jumps back makes nothing young again."""
        return max(time, self._latest)

    def all(self) -> list[Question]:
        """Return all questions in the order they were asked."""
        with self._lock:
            return list(self._questions.values())

    def pending(self, time: float) -> list[Question]:
        """Return the questions that wait for a person."""
        if not self._questions:  # those of most runs, each of which is reported
            return []
        return [one for one in self.all() if not one.used and one.state(self.now(time)) == "pending"]

    def find(
        self,
        ask: Ask,
        call: Call,
        bound: Bound,
        time: float,
        *,
        others: Collection[str] = frozenset(),
        n: int | None = None,
    ) -> Question | None:
        """Return the question that was asked about a call and still holds, or None.

        Args:
            ask: What a policy asks now.
            call: The call.
            bound: What the question must have been bound to.
            time: Unix seconds.
            others: Ids of questions that another policy asks about the call, or that belong to another call.
            n: Number of the call; None where it has none.
        """
        now = self.now(time)
        for question in self.all():
            if question.request.id in others:
                continue
            own = n is not None and question.used_by == n
            holds = own or (not question.used and question.state(now) != "expired")
            if holds and question.is_about(ask, call, bound):
                return question
        return None

    def take(self, question: Question, n: int) -> bool:
        """Use an approval for a call; False where another call was faster."""
        with self._lock:
            if not question.used:
                question.used, question.used_by = True, n
            return question.used_by == n

    def add(self, execution_id: str, make: Callable[[str], ApprovalRequest]) -> Question:
        """Keep a new question of a run.

        Args:
            execution_id: The run.
            make: Makes the question from its id.
        """
        with self._lock:
            request = make(f"{execution_id}-{len(self._questions) + 1}")
            question = self._questions[request.id] = Question(request)
            return question


def request_fields(request: ApprovalRequest) -> dict[str, Json]:
    """Return a question as the fields of its record."""
    return {
        "id": request.id,
        "agent": request.agent_name,
        "tool": request.tool,
        "kind": request.kind,
        "arguments": request.arguments,
        "call_id": request.call_id,
        "principal": principal_to_json(request.principal),
        "rule": request.rule,
        "reason": request.reason,
        "source": request.source,
        "digest": request.digest,
        "policy": request.policy,
        "requested_at": request.requested_at,
        "expires_at": request.expires_at,
        "approvers": list(request.approvers),
        "needed": request.needed,
    }


def _request_from(record: Record) -> ApprovalRequest:
    found = cast("dict[str, Any]", record)
    id_ = str(found["id"])
    return ApprovalRequest(
        id=id_,
        execution_id=id_.rpartition("-")[0],
        agent_name=found["agent"],
        tool=found["tool"],
        kind=found["kind"],
        arguments=found["arguments"],
        call_id=found["call_id"],
        principal=principal_from_json(found["principal"]),
        rule=found["rule"],
        reason=found["reason"],
        source=found["source"],
        digest=found["digest"],
        policy=found["policy"],
        requested_at=found["requested_at"],
        expires_at=found["expires_at"],
        approvers=tuple(found["approvers"]),
        needed=found["needed"],
    )


def answer_fields(request: ApprovalRequest, answer: ApprovalAnswer) -> dict[str, Json]:
    """Return an answer as the fields of its record."""
    fields: dict[str, Json] = {"id": request.id, "verdict": answer.verdict, "by": principal_to_json(answer.by)}
    if isinstance(answer, Approve) and answer.arguments is not None:
        fields["arguments"] = answer.arguments
    if answer.note:
        fields["note"] = answer.note
    return fields


def _answer_from(record: Record) -> ApprovalAnswer:
    found = cast("dict[str, Any]", record)
    by = cast("Principal", principal_from_json(found["by"]))
    if found["verdict"] == "reject":
        return Reject(by=by, note=found.get("note", ""))
    return Approve(by=by, arguments=found.get("arguments"), note=found.get("note", ""))


def principal_to_json(principal: Principal | None) -> Json:
    """Return a principal as `{"id": ..., "roles": [...], "tenant": ...}`, or None."""
    if principal is None:
        return None
    return {"id": principal.id, "roles": list(principal.roles), "tenant": principal.tenant}


def principal_from_json(node: Json) -> Principal | None:
    """Read what `principal_to_json` wrote."""
    if node is None:
        return None
    found = cast("dict[str, Any]", node)
    return Principal(id=found["id"], roles=tuple(found["roles"]), tenant=found["tenant"])
