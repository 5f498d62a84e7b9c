"""Drives agents of smolagents."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

from smolagents.agents import MultiStepAgent, RunResult

__all__ = ["ADAPTER", "SmolagentsAdapter"]


class SmolagentsAdapter:
    """Drives a `ToolCallingAgent` or a `CodeAgent` by `run(task)`; the output is its final answer."""

    name = "smolagents"

    def matches(self, agent: object) -> bool:
        """Return True for an agent of the framework."""
        return isinstance(agent, MultiStepAgent)

    def sees(self, agent: object) -> bool:
        """Return True: models and tools are governed where they are defined."""
        del agent
        return True

    def is_async(self, agent: object) -> bool:
        """Return False: the framework is sync."""
        del agent
        return False

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return cast("Any", agent).run(task)

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task in a thread."""
        return await asyncio.to_thread(self.drive, agent, task, tools)

    def output(self, result: Any) -> object:
        """Return the final answer."""
        return result.output if isinstance(result, RunResult) else result


ADAPTER: Final = SmolagentsAdapter()
