"""Runs single nodes of graphs, each with its own policy; what a fleet replaces."""

from __future__ import annotations

from collections.abc import Sequence

from oao_harness.runtime.graph import TaskNode
from oao_harness.runtime.opening import Place
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport

__all__ = ["Nodes"]


class Nodes:
    """Runs single nodes. Replace `run` to run them elsewhere.

    Args:
        plugins: Listeners that hear of the runs of the nodes.
    """

    def __init__(self, plugins: Sequence[object | str] = ()) -> None:
        self._plugins = plugins
        self._plain: Orchestrator | None = None
        self._by_policy: dict[int, tuple[object, Orchestrator]] = {}

    async def run(self, place: Place, node: TaskNode, task: object) -> ExecutionReport:
        """Run a node as a part of the run around it.

        Args:
            place: Its name and id in that run, whether it goes on, and how often it is tried again.
            node: Its agent and its policy.
            task: What it is asked.
        """
        return await self.orchestrator(node.policy).run_part(place, node.agent, task)

    @property
    def are_here(self) -> bool:
        """True where nobody has replaced `run`."""
        return type(self).run is Nodes.run

    def orchestrator(self, policy: object) -> Orchestrator:
        """Return who runs the nodes that have a policy; made once."""
        if policy is None:
            self._plain = self._plain or Orchestrator(plugins=self._plugins)
            return self._plain
        found = self._by_policy.get(id(policy))
        if found is None:
            # Kept with the policy: an id is good only as long as its object lives.
            found = self._by_policy[id(policy)] = policy, Orchestrator(policy, plugins=self._plugins)
        return found[1]
