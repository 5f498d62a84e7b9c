"""How an agent of Parrot is run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["ParrotAdapter"]


class ParrotAdapter:
    """Drives an agent by `start(task)`. Implements `oao_hookspecs.Adapter`."""

    name = "parrot"

    def matches(self, agent: object) -> bool:
        """Return True for an agent of Parrot's; whoever has one has imported it."""
        parrot: Any = sys.modules.get("parrot")
        return parrot is not None and isinstance(agent, parrot.Agent)

    def sees(self, agent: object) -> bool:
        """Return True: what such an agent does goes through the leaves."""
        return True

    def is_async(self, agent: object) -> bool:
        """Return False: Parrot knows no loop."""
        return False

    def drive(self, agent: Any, task: object, tools: Sequence[object]) -> object:
        """Run the agent."""
        return agent.start(task)

    async def drive_async(self, agent: Any, task: object, tools: Sequence[object]) -> object:
        """Run the agent beside the loop; `to_thread` takes the run's context along."""
        return await asyncio.to_thread(self.drive, agent, task, tools)

    def output(self, result: object) -> object:
        """Return the answer: it is the result."""
        return result
