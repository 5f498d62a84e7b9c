"""Which job is next: by priority, then fairly between tenants, then in the order they came. No clock and no loop."""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final

from oao_harness.errors import ConfigError
from oao_hookspecs import Job

__all__ = ["FairQueue"]

_PRIORITIES: Final = ("high", "normal", "low")

_Line = list[tuple[int, Job]]
"""A heap by the order of coming."""


class FairQueue:
    """Jobs that wait for a slot, and what of tenants and agents is at work.

    Within a priority the tenants take turns, whoever has how many jobs waiting; the jobs of one tenant are first in,
    first out. A job of a lower priority never goes before one of a higher priority that may go.

    A part of another run does not count for its tenant: the run around it does, and waits for it.

    Args:
        tenant_limit: Jobs of one tenant at the same time, >= 1; None without a limit. Jobs of nobody are not limited.
        agent_limits: The same for agents, by name.

    Raises:
        ConfigError: A limit is no whole number >= 1.
    """

    def __init__(self, tenant_limit: int | None = None, agent_limits: Mapping[str, int] | None = None) -> None:
        self._tenant_limit = _checked("tenant_limit", tenant_limit)
        self._agent_limits = {
            name: _checked(f"agent_limits[{name!r}]", limit) for name, limit in (agent_limits or {}).items()
        }
        self._lanes = {
            (nested, priority): OrderedDict[str, dict[str, _Line]]()
            for nested in (False, True)
            for priority in _PRIORITIES
        }
        self._came: dict[str, int] = {}
        """Order of coming of the jobs that wait; what is in a line and not here was taken out."""
        self._tenants: Counter[str] = Counter()
        self._agents: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._came)

    def __contains__(self, execution_id: object) -> bool:
        return execution_id in self._came

    def waiting(self) -> list[str]:
        """Return the ids of the jobs that wait, in no order."""
        return list(self._came)

    def put(self, job: Job, order: int) -> None:
        """Let a job wait.

        Args:
            job: One that does not wait yet.
            order: Its place among the others of its tenant and priority; unique.
        """
        self._came[job.execution_id] = order
        lines = self._lanes[job.nested, job.priority].setdefault(job.tenant, {})
        heapq.heappush(lines.setdefault(job.agent, []), (order, job))

    def remove(self, execution_id: str) -> None:
        """Take out a job that waits."""
        del self._came[execution_id]

    def take(self, *, nested: bool) -> tuple[int, Job] | None:
        """Return the next job that may go and its order, and count it as at work; None where none may.

        Args:
            nested: True for the parts of other runs, False for the others.
        """
        for priority in _PRIORITIES:
            tenants = self._lanes[nested, priority]
            found = self._first(tenants, nested=nested)
            if found is not None:
                order, job = found
                # Its turn was now, so it is the last one next time.
                tenants.move_to_end(job.tenant)
                del self._came[job.execution_id]
                self._count(job, 1)
                self._count_agent(job, 1)
                return order, job
        return None

    def _first(self, tenants: OrderedDict[str, dict[str, _Line]], *, nested: bool) -> tuple[int, Job] | None:
        empty: list[str] = []
        try:
            for tenant, lines in tenants.items():
                self._tidy(lines)
                if not lines:
                    empty.append(tenant)
                elif nested or not self._is_full(tenant):
                    heads = [(line[0][0], agent) for agent, line in lines.items() if self._may(agent)]
                    if heads:
                        return heapq.heappop(lines[min(heads)[1]])
            return None
        finally:
            for tenant in empty:
                del tenants[tenant]

    def done(self, job: Job, *, waits: bool = False) -> None:
        """Count a job as no longer at work.

        Args:
            job: One that was taken.
            waits: True where it was paused at the time.
        """
        self._count(job, -1)
        if not waits:
            self._count_agent(job, -1)

    def pause(self, job: Job) -> None:
        """Do not count a job for its agent, while it only waits for another job."""
        self._count_agent(job, -1)

    def go_on(self, job: Job) -> None:
        """Count a job for its agent again."""
        self._count_agent(job, 1)

    def _count(self, job: Job, by: int) -> None:
        if not job.nested:
            self._tenants[job.tenant] += by
            if not self._tenants[job.tenant]:
                del self._tenants[job.tenant]

    def _count_agent(self, job: Job, by: int) -> None:
        self._agents[job.agent] += by
        if not self._agents[job.agent]:
            del self._agents[job.agent]

    def _is_full(self, tenant: str) -> bool:
        return bool(tenant) and self._tenant_limit is not None and self._tenants[tenant] >= self._tenant_limit

    def _may(self, agent: str) -> bool:
        limit = self._agent_limits.get(agent)
        return limit is None or self._agents[agent] < limit

    def _tidy(self, lines: dict[str, _Line]) -> None:
        """Drop what was taken out, where it is the first of its line."""
        for agent in list(lines):
            line = lines[agent]
            while line and self._came.get(line[0][1].execution_id) != line[0][0]:
                heapq.heappop(line)
            if not line:
                del lines[agent]


def _checked(name: str, limit: int | None) -> int | None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{name}={limit!r}: give a whole number >= 1, or None for no limit")
    return limit
