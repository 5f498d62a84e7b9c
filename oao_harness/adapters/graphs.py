"""A graph of agents as an agent: walked, its nodes are nested runs of its own run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from oao_harness.runtime.graph import TaskGraph
from oao_harness.runtime.walking import Walk, prepared

__all__ = ["GraphAdapter"]


class GraphAdapter:
    """Drives a `TaskGraph`."""

    name = "graph"

    def matches(self, agent: object) -> bool:
        """Return True for a graph."""
        return isinstance(agent, TaskGraph)

    def sees(self, agent: object) -> bool:
        """Return True: the graph itself makes no call, and each of its nodes is looked at when it runs."""
        return True

    def is_async(self, agent: object) -> bool:
        """Return True: nodes run side by side on one loop."""
        return True

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run a graph."""
        return asyncio.run(self.drive_async(agent, task, tools))

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run a graph; as it was prepared, where somebody waits for the reports of its nodes."""
        walk = prepared.get()
        if walk is None or walk.graph is not agent or walk.began:
            walk = Walk(self._graph(agent))
        return await walk.go(task)

    def output(self, result: object) -> object:
        """Return what the last node returned; where several end the graph, what they returned, by name."""
        return result

    def _graph(self, agent: object) -> TaskGraph:
        assert isinstance(agent, TaskGraph)  # noqa: S101 - what `matches` said
        return agent
