"""Drives agents and workflows of Microsoft's agent-framework; the modules beside this one govern models and tools."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

from agent_framework._agents import BaseAgent, RawAgent
from agent_framework._clients import BaseChatClient
from agent_framework._workflows._agent import WorkflowAgent
from agent_framework._workflows._agent_executor import AgentExecutor
from agent_framework._workflows._functional import FunctionalWorkflow, FunctionalWorkflowAgent
from agent_framework._workflows._workflow import Workflow

from oao_harness.adapters.agent_framework_models import content_of
from oao_harness.adapters.visibility import reaches_governed

__all__ = ["ADAPTER", "AgentFrameworkAdapter"]


class AgentFrameworkAdapter:
    """Drives an agent or a workflow by `run(task)`; the output is its text, its value, or what the workflow put out."""

    name = "agent-framework"

    def matches(self, agent: object) -> bool:
        """Return True for an agent or a workflow of the framework."""
        return isinstance(agent, BaseAgent | Workflow | FunctionalWorkflow)

    def sees(self, agent: object) -> bool:
        """Return True where the agent, or each agent of the workflow, asks a chat client of the framework's family.

        An agent that is a service of its own (A2A, Copilot) has its model and tools elsewhere.
        """
        found = cast("Any", agent)
        if isinstance(agent, RawAgent):
            return isinstance(found.client, BaseChatClient)
        if isinstance(agent, WorkflowAgent):
            return self.sees(found.workflow)
        if isinstance(agent, Workflow):
            members = [one._agent for one in found.executors.values() if isinstance(one, AgentExecutor)]
            return all(self.sees(one) for one in members)
        return isinstance(agent, FunctionalWorkflow | FunctionalWorkflowAgent) or reaches_governed(agent)

    def is_async(self, agent: object) -> bool:
        """Return True: the framework is async."""
        del agent
        return True

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        return asyncio.run(cast("Any", self.drive_async(agent, task, tools)))

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return await cast("Any", agent).run(task)

    def output(self, result: object) -> object:
        """Return what the agent answered, or asks a person for; of a workflow, what it put out."""
        found = cast("Any", result)
        outputs = getattr(found, "get_outputs", None)
        if outputs is not None:
            values = [self.output(value) for value in outputs()]
            return values[0] if len(values) == 1 else values
        asked = getattr(found, "user_input_requests", None)
        if asked:
            return {"user_input_requests": [content_of(content.to_dict()) for content in asked]}
        value = getattr(found, "value", None)
        return getattr(found, "text", found) if value is None else value


ADAPTER: Final = AgentFrameworkAdapter()
