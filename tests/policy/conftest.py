"""Runs to judge in, and the short way to ask a policy file about calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from oao_harness import FilePolicy
from oao_harness.runtime.clock import SystemClock
from oao_harness.runtime.dispatch import Hooks
from oao_harness.runtime.run import Run
from oao_hookspecs import Decision, ErrorInfo, Outcome, Principal, ToolCall

Ask = Callable[..., str]


class Desk:
    """One run under one policy: calls are judged and finished one after the other."""

    def __init__(self, policy: Any, **run: Any) -> None:
        self.policy = policy
        self.run = make_run(**run)
        self.count = 0

    def judge(self, name: str, *, id: str | None = None, proposed: bool = False, **arguments: Any) -> Decision | None:
        """Ask about a tool call; each is a new one unless an id is given."""
        self.count += 1
        unique = "" if proposed else id or f"call-{self.count}"
        call = ToolCall(name=name, arguments=arguments, id=unique, proposed=proposed)
        return self.policy.oao_decide_tool_call(call, self.run)

    def finish(self, name: str, value: Any = None, *, id: str | None = None, error: str = "") -> Decision | None:
        """Say how the latest call ended."""
        call = ToolCall(name=name, arguments={}, id=id or f"call-{self.count}")
        failed = ErrorInfo(type="builtins:ValueError", message=error) if error else None
        return self.policy.oao_decide_outcome(call, Outcome(value=value, error=failed), self.run)

    def batch(self, *calls: str | tuple[str, Mapping[str, Any]]) -> Decision | None:
        """Ask about calls of one answer together."""
        named = [(call, {}) if isinstance(call, str) else call for call in calls]
        proposed = [ToolCall(name=name, arguments=arguments, proposed=True) for name, arguments in named]
        return self.policy.oao_decide_batch(proposed, self.run)

    def says(self, name: str, **arguments: Any) -> str:
        """Return the answer as `verdict rule`."""
        decision = self.judge(name, **arguments)
        return "none" if decision is None else f"{decision.verdict} {decision.rule}"


def make_run(
    *, task: object = "a task", agent: str = "bank-agent", principal: Principal | None = None, hooks: Any = None
) -> Run:
    """Return a run that is not part of any orchestrator."""
    return Run(
        execution_id="run-1", agent_name=agent, task=task, hooks=hooks or Hooks({}, 5.0), clock=SystemClock(),
        principal=principal,
    )  # fmt: skip


@pytest.fixture
def desk() -> Callable[..., Desk]:
    """Opens a run under the policy of a TOML text, or under a policy object."""

    def open_desk(policy: Any, **run: Any) -> Desk:
        return Desk(FilePolicy.from_text(policy) if isinstance(policy, str) else policy, **run)

    return open_desk
