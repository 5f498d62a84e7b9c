"""Parts of a run that other workers run: submitted as jobs, waited for, and drawing from one budget with the whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, cast

from oao_harness.errors import ConfigError, RunSuspended, UsageError
from oao_harness.fleet.jobs import Jobs, Part
from oao_harness.runtime.opening import Place
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.run import Run
from oao_harness.runtime.shared_budget import SharedBudget
from oao_hookspecs import Json, Limits, Principal

__all__ = ["Remote", "budget_of", "limits_from", "limits_to"]

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


class Remote:
    """Has parts of a run done by the workers of a fleet.

    Args:
        jobs: Of the fleet; its store is the store of the run, and holds the budget.
        ledger: URL of the ledger that the whole tree draws from; that of the fleet's store.
        policy: Names of the policies of the run: they hold for its parts too, wherever these run.

    Raises:
        UsageError: A policy is an object, which no worker could be told of.
    """

    def __init__(self, jobs: Jobs, *, ledger: str, policy: Sequence[object] = ()) -> None:
        unnamed = next((one for one in policy if not isinstance(one, str)), None)
        if unnamed is not None:
            raise UsageError(
                f"policy {unnamed!r:.80} cannot be told to other workers; name it: a .toml file, or module:attribute"
            )
        self._jobs = jobs
        self._ledger = ledger
        self._policy = cast("tuple[str, ...]", tuple(policy))

    def share(self, run: Run) -> None:
        """Let a run, from its first call on, draw from one account with the parts that other workers run.

        Raises:
            ConfigError: The store is no ledger, so that the limits could not hold over workers.
        """
        limits = limits_from(limits_to(run.limits))
        if run.tree is None and limits != Limits():
            run.tree = budget_of(run.execution_id, self._ledger, limits)

    async def run_part(self, place: Place, agent: str, task: object, run: Run) -> ExecutionReport:
        """Have a part done and return its report; cancelled, it cancels the part.

        Args:
            place: Of the part; its id is the job's, so that asking twice is one job.
            agent: The name that it is registered by.
            task: Plain data.
            run: The run that it is a part of.

        Raises:
            AgentError: No agent is registered by that name.
            StoreError: The queue or the store cannot be reached.
        """
        budgets: list[Json] = []
        for member in run.lineage:
            if member.tree is not None:
                budgets.append({"name": member.tree.name, "limits": limits_to(member.tree.limits)})
        if not place.begun:
            run.write("child", {"execution_id": place.execution_id, "node": place.node})
        registered = self._jobs.agents.get(agent)
        await self._jobs.submit(
            agent,
            task,
            execution_id=place.execution_id,
            principal=run.principal,
            policy=[*dict.fromkeys((*self._policy, *registered.policy))],
            retries=place.retries,
            part=Part(parent=run.execution_id, node=place.node, budgets=budgets),
        )
        try:
            report = await self._jobs.fetch(place.execution_id)
        except asyncio.CancelledError:
            if not isinstance(run.halted, RunSuspended):
                await asyncio.shield(asyncio.ensure_future(self._jobs.cancel(place.execution_id, _BY)))
            raise
        assert report is not None  # noqa: S101 - without a time limit it is waited for
        if report.status == "SUSPENDED":
            for member in run.lineage:
                member.latch(RunSuspended(report.error or "a part waits for a person", rule="part", plugin="oao"))
        return report


def budget_of(execution_id: str, ledger: str, limits: Limits) -> SharedBudget:
    """Return what a run and its parts may spend together.

    Args:
        execution_id: The run.
        ledger: URL of the ledger.
        limits: What is limited.
    """
    try:
        return SharedBudget(f"run:{execution_id}", ledger, limits=limits)
    except ConfigError as error:
        raise ConfigError(f"the limits of run {execution_id} cannot hold over several workers: {error}") from error


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
