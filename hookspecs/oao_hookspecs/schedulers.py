"""What carries jobs to workers: a scheduler wakes a worker for a run. It is never the only record of one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

__all__ = ["Handler", "Job", "Later", "Priority", "QueueStats", "Scheduler", "SchedulerSettings", "WorkerSeen"]

Priority: TypeAlias = Literal["high", "normal", "low"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """That a run waits for a worker. The run's journal says what is to be done; this says only when, and for whom."""

    execution_id: str
    agent: str
    """Name that the agent is registered by; what limits on agents count."""
    tenant: str = ""
    """Whose run it is; what limits on tenants count. Empty for nobody's."""
    priority: Priority = "normal"
    not_before: float = 0.0
    """Unix seconds; 0 for at once."""
    nested: bool = False
    """True for a part of another run, whose worker waits for it: it gets slots of its own, else all could wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """What a handler answers where the job is not done: deliver it again. Never an acknowledgement."""

    after_s: float
    """Seconds, >= 0."""
    reason: str
    """One line, for who looks at the queue."""


Handler: TypeAlias = Callable[[Job], Awaitable[Later | None]]
"""Does a job; None where nothing is left to do. Being cancelled means that the job was, see `Scheduler.cancel`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """A worker as the queue knows it."""

    name: str
    last_heard: float
    """Unix seconds."""
    running: Sequence[str] = ()
    """Ids of the runs that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """What is in a queue now."""

    queued: int
    """Jobs that wait for a slot."""
    delayed: int
    """Jobs whose time has not come: delayed, or to be tried again."""
    running: int
    workers: Sequence[WorkerSeen] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """What a fleet asks of the scheduler that it opens."""

    lease_s: float = 24.0
    """Seconds for which a run belongs to a worker that is not heard of. A job is to be delivered again a little later:
    then the next worker need not wait."""
    tenant_limit: int | None = None
    """How many jobs of one tenant may run at once in the whole fleet; None for any number."""
    agent_limits: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many jobs of an agent may, by its name."""


@runtime_checkable
class Scheduler(Protocol):
    """Carries jobs to workers: at least once, maybe twice, first in first out within a priority.

    A worker that dies, or is not heard of, loses its jobs to another one. What makes a job that is delivered twice
    harmless is the run's journal: its store lets only one writer in. Every method raises `StoreError` where the queue
    cannot be reached.
    """

    async def submit(self, job: Job) -> None:
        """Let a worker have the job, once `not_before` has come. One that is queued or running already stays as it is.

        When this returns, the job survives the death of any process, as far as the scheduler is durable.
        """
        ...

    async def work(self, handler: Handler, *, slots: int, stop: asyncio.Event) -> None:
        """Hand jobs to a handler until `stop` is set; then take no more, and return when those at work have ended.

        Args:
            handler: Awaited once for each delivery, side by side.
            slots: How many at once, >= 1.
            stop: Set by who wants it to end. Cancelling this coroutine gives up what is at work: others get it.
        """
        ...

    async def cancel(self, execution_id: str) -> None:
        """Forget a queued job, or cancel the handler that is at work on it, wherever it is; an unknown one is none."""
        ...

    async def ended(self, execution_id: str) -> None:
        """Tell everybody who waits for a run that it has ended, or waits for a person."""
        ...

    async def wait(self, execution_id: str, timeout_s: float) -> bool:
        """Return True as soon as `ended` is told from now on, False after the time; not by asking again and again."""
        ...

    async def stats(self) -> QueueStats:
        """Return what is in the queue."""
        ...

    async def close(self) -> None:
        """Release what is open. Calling it twice is allowed."""
        ...
