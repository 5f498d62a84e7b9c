"""The existing implementation, `open-agent-orchestrator`, in the one way in which it can succeed.

It calls `agent.invoke(task, config=...)` and nothing else, an orchestrator of it works once, and it prints.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from oao import Orchestrator, StrictPolicy

PACKAGES = ("open-agent-orchestrator",)


class Agent:
    """An agent as it takes them."""

    name = "trivial"

    def invoke(self, task: str, config: Any = None) -> dict[str, str]:
        return {"output": task}


class AsyncAgent(Agent):
    async def ainvoke(self, task: str, config: Any = None) -> dict[str, str]:
        return {"output": task}


def orchestrator() -> Orchestrator:
    """Return one with limits that nothing here reaches."""
    return Orchestrator(policy=StrictPolicy(max_tool_calls=10**9, max_tokens=10**9, timeout_seconds=10**6))


def checked(report: Any) -> None:
    """Check that a run did run: a failed one is quicker."""
    assert report.status == "SUCCESS", report


def tool(function: Any) -> Any:
    """Return a tool as it takes them: it replaces `func`."""
    return SimpleNamespace(name=function.__name__, func=function)
