"""Hold for approval: what a policy refuses becomes a question to a person, who knows what they asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from oao_harness.policy.file import FilePolicy
from oao_hookspecs import (
    ApprovalAnswer,
    ApprovalRequest,
    Approve,
    Ask,
    Decision,
    Deny,
    Outcome,
    Principal,
    Reject,
    RunView,
    ToolCall,
    hookimpl,
)

__all__ = ["Held"]

_USER = Principal(id="the user")


class Held:
    """A policy file whose objections become questions, and the person who answers them. One object for one run.

    Args:
        policy: The policy file.
        approves: Answers for the person: True for a call that belongs to the user's own work.
        denials: True makes a question of a denial too; False leaves it a denial.
    """

    name = "held"

    def __init__(self, policy: FilePolicy, approves: Callable[[], bool], *, denials: bool = True) -> None:
        self._policy = policy
        self._approves = approves
        self._denials = denials
        self._asked: set[str] = set()
        self.first: Literal["", "ask", "deny"] = ""
        """What the file first objected with."""

    @property
    def questions(self) -> int:
        """How many calls the person was asked about."""
        return len(self._asked)

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Decision | None:
        """Judge a call; hold it where the file has an objection."""
        decision = self._policy.oao_decide_tool_call(call, run)
        if not isinstance(decision, Ask | Deny):
            return decision
        self.first = self.first or decision.verdict
        if isinstance(decision, Deny) and not self._denials:
            return decision
        self._asked.add(call.id)
        return Ask(rule=decision.rule, source=decision.source, reason=decision.reason, plugin=self._policy.name)

    @hookimpl
    def oao_answer_approval(self, request: ApprovalRequest) -> ApprovalAnswer:
        """Answer for the person."""
        return Approve(by=_USER) if self._approves() else Reject(by=_USER)

    @hookimpl
    def oao_decide_outcome(self, call: ToolCall, outcome: Outcome, run: RunView) -> Decision | None:
        """Remember what the call leaves behind."""
        return self._policy.oao_decide_outcome(call, outcome, run)
