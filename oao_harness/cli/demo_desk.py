"""The agents of `oao serve --demo`: they need no key and no model, and a person approves their refunds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from oao_harness.cli.demo_agents import refund_agent, runaway_agent
from oao_harness.fleet.agents import Registered
from oao_harness.policy.file import FilePolicy
from oao_harness.policy.strict import StrictPolicy

__all__ = ["POLICY", "RUNAWAY", "TASK", "demo_agents"]

TASK: Final = "My order A-1042 arrived broken. I want my money back."
POLICY: Final = FilePolicy.from_text(
    """
name = "demo-desk"

[limits]
max_tool_calls = 10

[tools]
allow = ["find_order", "read_policy"]
ask = ["refund"]
deny = ["delete_*"]
""",
    "demo-desk.toml",
)
RUNAWAY: Final = StrictPolicy()
_LATENCY_S: Final = 0.3


def _desk() -> Callable[[str], str]:
    return refund_agent(Counter(), latency_s=_LATENCY_S)


def _runaway() -> Callable[[str], str]:
    agent = runaway_agent(Counter())

    def slowly(task: str) -> str:
        time.sleep(_LATENCY_S)
        return agent(task)

    return slowly


def demo_agents() -> list[Registered]:
    """Return the agents: `demo`, which asks for an approval, and `demo-runaway`, which is stopped."""
    source = "oao serve --demo"
    return [
        Registered(name="demo", source=source, load=_desk, policy=(f"{__name__}:POLICY",)),
        Registered(name="demo-runaway", source=source, load=_runaway, policy=(f"{__name__}:RUNAWAY",)),
    ]
