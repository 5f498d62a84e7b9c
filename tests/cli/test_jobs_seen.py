"""A list of jobs is asked status by status, while the jobs move on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from oao_harness import MemoryStore
from oao_harness.cli.jobs import _OPEN, _look
from oao_harness.fleet.agents import Agents, Registered
from oao_harness.fleet.jobs import Jobs
from oao_harness.journal.writer import Writer
from oao_harness.runtime.clock import SystemClock
from oao_harness.schedulers.local import LocalScheduler
from oao_hookspecs import RunQuery, RunSummary


class _MovingStore(MemoryStore):
    """A store in which something happens between two questions."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], None] | None = None

    def runs(self, limit: int | None = 100, *, offset: int = 0, query: RunQuery | None = None) -> Sequence[RunSummary]:
        found = super().runs(limit, offset=offset, query=query)
        if self.between is not None:
            happens, self.between = self.between, None
            happens()
        return found


@pytest.mark.parametrize("back", [False, True])
def test_a_job_that_moves_on_meanwhile_is_listed(back: bool) -> None:
    """It is begun, or queued again, between two questions: no status misses it, and it is listed once."""

    async def seen() -> list[str]:
        store = _MovingStore()
        jobs = Jobs(LocalScheduler(), store, Agents([Registered(name="one", source="here", load=lambda: print)]))
        await jobs.submit("one", "x", execution_id="job-1")
        writer = Writer(store, "job-1", SystemClock())
        writer.continue_after(len(list(store.read("job-1"))))
        if back:
            writer.append("run.resumed", {})
        moves = ("run.queued", {"reason": "again", "not_before": 0.0}) if back else ("run.resumed", {})
        store.between = lambda: writer.append(*moves)
        found = await _look(jobs, _OPEN, 20, stats=False)
        await jobs.close()
        return [job.execution_id for job in found.jobs]

    assert asyncio.run(seen()) == ["job-1"]
