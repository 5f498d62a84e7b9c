"""Nodes of a graph that other workers run: jobs that are waited for, and that draw from one budget with the whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, cast

from oao_harness.errors import ConfigError, OaoError, RunSuspended, UsageError
from oao_harness.fleet.jobs import Jobs, Part
from oao_harness.runtime import context
from oao_harness.runtime.graph import TaskNode
from oao_harness.runtime.opening import Place
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.run import Run
from oao_harness.runtime.walking import Nodes
from oao_hookspecs import Json, Limits, Principal

__all__ = ["FleetNodes", "limits_from", "limits_to"]

_LOOK_S: Final = 0.1
"""Seconds between two looks whether the run around a job was halted."""
_BY: Final = Principal(id="the run that it is a part of")
# What processes can draw from together; time and what a call may be are each process' own business.
_SHARED: Final = (
    "max_steps",
    "max_model_calls",
    "max_tool_calls",
    "max_tokens",
    "max_input_tokens",
    "max_output_tokens",
    "max_cost_usd",
    "assumed_output_tokens",
    "tool_limits",
)


class FleetNodes(Nodes):
    """Has the nodes of a graph done by the workers of a fleet: those whose agent is a name that is registered.

    ```python
    nodes = FleetNodes(fleet, policy=["strict"])
    GraphExecutor(graph, policy="strict", store=fleet.store, nodes=nodes).execute("topic")
    ```

    Nodes whose agent is an object run here. The limits of the graph's run hold over all of them together, wherever
    they run; they draw from an account in the fleet's store, which must be named by its URL then.

    Args:
        jobs: The fleet, open in the loop that the graph runs in. Its store is the graph's store.
        policy: Names of the policies of the graph's run: they hold for its nodes too, wherever these run.

    Raises:
        UsageError: A policy is an object, which no worker could be told of.
    """

    def __init__(self, jobs: Jobs, *, policy: str | Sequence[object] = ()) -> None:
        super().__init__()
        named: Sequence[object] = [policy] if isinstance(policy, str) else policy
        unnamed = next((one for one in named if not isinstance(one, str)), None)
        if unnamed is not None:
            raise UsageError(
                f"policy {unnamed!r:.80} cannot be told to other workers; name it: a .toml file, or module:attribute"
            )
        self._jobs = jobs
        self._policy = cast("tuple[str, ...]", tuple(named))

    async def run(self, place: Place, node: TaskNode, task: object) -> ExecutionReport:
        """Run a node; see `Nodes.run`. Cancelled, it cancels the job.

        Raises:
            AgentError: No agent is registered by that name.
            UsageError: The node has a policy that is no name, or the store is another one than the fleet's.
            StoreError: The queue or the store cannot be reached.
        """
        run = context.here.get()
        if run is None:
            raise OaoError("a node is run inside of the run of its graph")
        self._share(run)
        if not isinstance(node.agent, str):
            return await super().run(place, node, task)
        if run.store is not self._jobs.store:
            raise UsageError(f"node {node.name!r} is run by a fleet: give the graph its store, store=fleet.store")
        policies = [*self._policy, *_named(node), *self._jobs.agents.get(node.agent).policy]
        budgets = [{"name": one.name, "limits": limits_to(one.limits)} for one, _ in run.shared_budgets]
        await self._jobs.submit(
            node.agent,
            task,
            execution_id=place.execution_id,
            tenant=run.tenant,
            principal=run.principal,
            policy=[*dict.fromkeys(policies)],
            retries=place.retries,
            part=Part(parent=run.execution_id, node=place.node, budgets=cast("Sequence[Json]", budgets)),
        )
        if not place.begun:
            # After it: a job that nobody waits for can be cancelled, one that nobody has heard of would be waited for.
            run.write("child", {"execution_id": place.execution_id, "node": place.node})
        return await self._fetched(run, place.execution_id)

    def _share(self, run: Run) -> None:
        """Let a run, before its first node, draw from one account with the nodes that other workers run."""
        limits = limits_from(limits_to(run.limits))
        if run.tree is None and limits != Limits():
            run.tree = self._jobs.budget(run.execution_id, limits)

    async def _fetched(self, run: Run, execution_id: str) -> ExecutionReport:
        """Wait for a job; where the run around it is halted meanwhile, so is the job."""
        fetching = asyncio.ensure_future(self._jobs.fetch(execution_id))
        halted = None
        try:
            while not fetching.done() and halted is None:
                await asyncio.wait({fetching}, timeout=_LOOK_S)
                halted = next((one.halted for one in run.lineage if one.halted is not None), None)
        finally:
            fetching.cancel()
        if halted is not None:
            if not isinstance(halted, RunSuspended):
                await self._jobs.cancel(execution_id, _BY)
            raise halted
        report = fetching.result()
        if report is None:
            raise OaoError(f"run {execution_id} has no end")
        if report.status == "SUSPENDED":
            reason = f"a node that another worker has waits for a person: {report.error}"
            for member in run.lineage:
                member.latch(RunSuspended(reason, rule="part", plugin="oao"))
        return report


def _named(node: TaskNode) -> list[str]:
    found = node.policy
    policies = list(cast("Sequence[object]", found)) if isinstance(found, list | tuple) else [found]
    if any(one is not None and not isinstance(one, str) for one in policies):
        raise UsageError(f"node {node.name!r} is run by another worker: name its policy, an object cannot travel")
    return [one for one in policies if isinstance(one, str)]


def limits_to(limits: Limits) -> dict[str, Json]:
    """Return the limits that processes can share, as JSON; those that are not set are left out."""
    found: dict[str, Any] = {name: getattr(limits, name) for name in _SHARED}
    found["tool_limits"] = dict(limits.tool_limits) or None
    return {name: value for name, value in found.items() if value is not None}


def limits_from(node: Mapping[str, Json]) -> Limits:
    """Read what `limits_to` returned; unknown fields are an error, because a limit that is not kept is none."""
    unknown = set(node) - {field.name for field in fields(Limits)}
    if unknown:
        raise ConfigError(f"a job names the limit {sorted(unknown)[0]!r}, which this version does not know")
    return Limits(**cast("dict[str, Any]", dict(node)))
