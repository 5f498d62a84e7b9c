"""Hold for approval: what a policy refuses becomes a question to a person, who knows what they asked the agent to do."""

from __future__ import annotations

from collections.abc import Callable

from oao_harness.policy.file import FilePolicy
from oao_hookspecs import Ask, Decision, Deny, Outcome, RunView, ToolCall, hookimpl

__all__ = ["Held"]


class Held:
    """A policy file that asks where it would deny. One object for one run.

    Args:
        policy: The policy file.
        approves: Answers for the person: True for a call that belongs to the user's own work.
    """

    name = "held"

    def __init__(self, policy: FilePolicy, approves: Callable[[], bool]) -> None:
        self._policy = policy
        self._approves = approves
        self.questions = 0
        """How often the person was asked."""

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Decision | None:
        """Judge a call; hold it where the file has an objection."""
        decision = self._policy.oao_decide_tool_call(call, run)
        if not isinstance(decision, Ask | Deny):
            return decision
        self.questions += 1
        if self._approves():
            return None
        return Deny(rule=decision.rule, source=decision.source, reason=f"the person refused: {decision.reason}")

    @hookimpl
    def oao_decide_outcome(self, call: ToolCall, outcome: Outcome, run: RunView) -> Decision | None:
        """Remember what the call leaves behind."""
        return self._policy.oao_decide_outcome(call, outcome, run)
