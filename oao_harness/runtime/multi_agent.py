"""Runs several agents side by side: each is a run of its own, nested in one run around all, with one budget tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from oao_harness.errors import ConfigError
from oao_harness.runtime.approvals import Approver
from oao_harness.runtime.dag import GraphExecutor, GraphResults, in_loop_of_its_own
from oao_harness.runtime.graph import TaskGraph, TaskNode
from oao_harness.runtime.node_tasks import Exactly
from oao_harness.runtime.shared_budget import SharedBudget
from oao_harness.runtime.walking import MAX_CONCURRENCY, require_concurrency
from oao_hookspecs import Clock, Principal, Store

__all__ = ["MultiAgentOrchestrator"]


class MultiAgentOrchestrator:
    """Runs several agents side by side under one budget.

    Args:
        max_concurrency: Agents that run at the same time, >= 1.
        policy: Holds over all agents together; see `Orchestrator`.
        policies: Policies that hold for single agents besides, by the name of the agent.
        store: Where journals go: a store, or a URL; memory by default.
        plugins: See `GraphExecutor`.
        approver: See `Orchestrator`.
        budget: See `Orchestrator`.
        clock: See `Orchestrator`.

    Raises:
        ConfigError: An option is wrong.
    """

    def __init__(
        self,
        max_concurrency: int = MAX_CONCURRENCY,
        policy: object | str | Sequence[object | str] | None = None,
        *,
        policies: Mapping[str, object | str | Sequence[object | str]] | None = None,
        store: Store | str | None = None,
        plugins: Sequence[object | str] = (),
        approver: Approver | None = None,
        budget: SharedBudget | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._max_concurrency = require_concurrency(max_concurrency)
        self._policies = dict(policies or {})
        # Opened once: every run of this orchestrator is in the same store.
        nothing = TaskGraph([TaskNode("nothing", _nothing)])
        self._model = GraphExecutor(nothing, policy, store=store, plugins=plugins, approver=approver, clock=clock)
        self._policy, self._plugins, self._approver = policy, plugins, approver
        self._budget, self._clock = budget, clock

    @property
    def store(self) -> Store:
        """Where the journals are."""
        return self._model.store

    def run_multi(
        self,
        agents: Mapping[str, object],
        task: object = None,
        *,
        tasks: Mapping[str, object] | None = None,
        execution_id: str | None = None,
        principal: Principal | None = None,
    ) -> GraphResults:
        """Run agents and wait for their reports; see `run_multi_async`."""
        return in_loop_of_its_own(
            lambda: self.run_multi_async(agents, task, tasks=tasks, execution_id=execution_id, principal=principal)
        )

    async def run_multi_async(
        self,
        agents: Mapping[str, object],
        task: object = None,
        *,
        tasks: Mapping[str, object] | None = None,
        execution_id: str | None = None,
        principal: Principal | None = None,
    ) -> GraphResults:
        """Run agents side by side. What one of them raises stops none of the others.

        Args:
            agents: By name.
            task: What each is asked.
            tasks: What single ones are asked instead, by name.
            execution_id: Id of the run around them; a new one by default.
            principal: Who they act for.

        Returns:
            The report of each agent, in the order they are given here; `workflow` is that of the run around them.

        Raises:
            ConfigError: There is no agent, or a task or a policy is for one that is not there.
        """
        if not isinstance(cast("object", agents), Mapping) or not agents:
            raise ConfigError(f"agents={agents!r:.80}: give at least one agent by name, such as {{'critic': agent}}")
        own = dict(tasks or {})
        for what, names in (("task", own), ("policy", self._policies)):
            if unknown := [name for name in names if name not in agents]:
                raise ConfigError(
                    f"there is a {what} for {unknown[0]!r}, and no such agent; there are {', '.join(agents)}"
                )
        graph = TaskGraph(
            (
                TaskNode(name, agent, Exactly(own.get(name, task)), policy=self._policies.get(name))
                for name, agent in agents.items()
            ),
            name="agents",
        )
        executor = GraphExecutor(
            graph,
            self._policy,
            self._max_concurrency,
            execution_id,
            store=self.store,
            plugins=self._plugins,
            approver=self._approver,
            budget=self._budget,
            clock=self._clock,
        )
        return await executor.execute_async(own if task is None and own else task, principal=principal)


def _nothing() -> None:
    return None
