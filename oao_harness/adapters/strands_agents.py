"""Drives agents, graphs and swarms of Strands Agents."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from strands.agent.agent import Agent
from strands.agent.agent_result import AgentResult
from strands.multiagent.base import MultiAgentBase, MultiAgentResult, NodeResult

__all__ = ["ADAPTER", "StrandsAdapter"]

_REMOTE: Final = "strands.agent.a2a_agent"


class StrandsAdapter:
    """Drives an `Agent`, a `Graph` or a `Swarm` by calling it with the task.

    The output of an agent is its structured output, else its text; that of a graph or a swarm is what its nodes said,
    by name.
    """

    name = "strands"

    def matches(self, agent: object) -> bool:
        """Return True for an agent, for what is made of several, and for one that runs elsewhere."""
        return isinstance(agent, Agent | MultiAgentBase) or any(
            base.__module__ == _REMOTE for base in type(agent).__mro__
        )

    def sees(self, agent: object) -> bool:
        """Return True where its models and tools are in this process: they are governed where they are defined."""
        return isinstance(agent, Agent | MultiAgentBase)

    def is_async(self, agent: object) -> bool:
        """Return True: the framework is async, and its sync way in is a thread with a loop."""
        del agent
        return True

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return cast("Any", agent)(task)

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return await cast("Any", agent).invoke_async(task)

    def output(self, result: Any) -> object:
        """Return what was said, as plain data; the questions where the agent waits for its user."""
        if isinstance(result, NodeResult):
            return self.output(result.result)
        interrupts = getattr(result, "interrupts", None)
        if interrupts:
            return {"__interrupt__": [one.to_dict() for one in interrupts]}
        if isinstance(result, MultiAgentResult):
            return {name: self.output(node) for name, node in cast("Mapping[str, Any]", result.results).items()}
        if isinstance(result, AgentResult):
            return result.structured_output or str(result).removesuffix("\n")
        return str(result) if isinstance(result, Exception) else result


ADAPTER: Final = StrandsAdapter()
