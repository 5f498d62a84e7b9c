"""Lists as values: runs, workers, policies with their coverage. No markup, no I/O."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from oao_harness.fleet.status import JobStatus
from oao_harness.journal.timeline import number
from oao_harness.wording.numbers import ago, count, dollars, duration
from oao_harness.wording.texts import one_line
from oao_hookspecs import QueueStats, RunSummary

__all__ = ["STATUSES", "JobRow", "RunRow", "StatusLook", "WorkerRow", "job_row", "run_row", "status_look", "workers_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusLook:
    """How a status is shown: never by its colour alone."""

    word: str
    icon: str
    tone: str
    """A class of the style sheet."""


STATUSES: Final[Mapping[str, StatusLook]] = {
    "RUNNING": StatusLook(word="Running", icon="running", tone="run"),
    "SUSPENDED": StatusLook(word="Waiting", icon="pause", tone="wait"),
    "QUEUED": StatusLook(word="Queued", icon="clock", tone="queue"),
    "FAILED": StatusLook(word="Failed", icon="cross", tone="bad"),
    "DEAD": StatusLook(word="Dead letter", icon="skull", tone="dead"),
    "SUCCESS": StatusLook(word="Succeeded", icon="check", tone="good"),
}


def status_look(status: str) -> StatusLook:
    """Return how a status is shown; one that is not known as it is."""
    return STATUSES.get(status) or StatusLook(word=one_line(status).capitalize(), icon="dot", tone="queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run in the list."""

    execution_id: str
    agent: str
    look: StatusLook
    started_at: float
    took: str
    calls: str
    tokens: str
    cost: str
    forked_from: str


def run_row(run: RunSummary) -> RunRow:
    """Return a run as a line of the list."""
    totals = run.totals or {}
    cost = totals.get("cost_usd")
    return RunRow(
        execution_id=run.execution_id,
        agent=one_line(run.agent_name) or "agent",
        look=status_look(run.status),
        started_at=run.started_at,
        took="" if run.finished_at is None else duration(max(0.0, run.finished_at - run.started_at)),
        calls=count(int(number(totals, "steps"))) if totals else "",
        tokens=count(int(number(totals, "tokens"))) if totals else "",
        cost=dollars(float(cost)) if isinstance(cost, int | float) else "",
        forked_from=run.forked_from or "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """A worker of the fleet."""

    name: str
    heard: str
    running: Sequence[str]


def workers_of(stats: QueueStats) -> list[WorkerRow]:
    """Return the workers of a queue by name."""
    now = time.time()
    return [
        WorkerRow(name=one_line(one.name), heard=ago(max(0.0, now - one.last_heard)), running=tuple(one.running))
        for one in sorted(stats.workers, key=lambda one: one.name)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job in a list."""

    execution_id: str
    agent: str
    look: StatusLook
    queued_at: float
    attempts: int
    retries: int
    reason: str


def job_row(job: JobStatus) -> JobRow:
    """Return a job as a line of a list."""
    return JobRow(
        execution_id=job.execution_id,
        agent=one_line(job.agent),
        look=status_look(job.status),
        queued_at=job.queued_at,
        attempts=job.attempts,
        retries=job.retries,
        reason=one_line(job.reason)[:300],
    )
