"""Jobs: the fleet's queue as the server uses it, in an event loop of its own.

A store or a queue that answers slowly holds up the fleet's loop, not the one that answers requests; agents run in
loops of their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

from oao_harness.errors import OaoError, StoreError, UsageError
from oao_harness.fleet.agents import Agents, Registered
from oao_harness.fleet.jobs import Jobs
from oao_harness.fleet.status import JobStatus, job_of, report_of, status_of
from oao_harness.fleet.worker import Fleet
from oao_harness.listeners.metrics_exposition import Exposition, asked_of_loop
from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.requeuing import Retries
from oao_harness.server.callers import Caller
from oao_harness.server.histories import Histories
from oao_harness.server.hosting import Hosts
from oao_harness.server.idempotency import Idempotent, Request
from oao_harness.server.refusals import NotFound, Stopping, WrongState
from oao_hookspecs import Priority, QueueStats, Record, Scheduler, Store

__all__ = ["HostedFleet", "Queueing"]

T = TypeVar("T")
_log: Final = logging.getLogger(__name__)

_LEAVING_S: Final = 1.0
_ANSWER_S: Final = 6.0
"""Seconds that a queue may take to say what is in it; a little more than one question of Redis may."""
_MOST_LISTED: Final = 10_000
"""Runs among which jobs are looked for."""
_PAUSE_S: Final = 2.0
"""Seconds after which a fleet that cannot work tries again."""


class HostedFleet(Fleet):
    """A fleet whose agents run where the server's agents run.

    Args:
        hosts: Where that is.
        store_url: Of the store, for budgets that workers share.
        scheduler: See `Jobs`.
        store: See `Jobs`.
        agents: See `Jobs`.
        plugins: See `Fleet`.
    """

    _drives_here = False

    def __init__(
        self,
        hosts: Hosts,
        store_url: str,
        scheduler: Scheduler | str,
        store: Store,
        agents: Agents | None,
        *,
        plugins: Sequence[object],
    ) -> None:
        super().__init__(scheduler, store, agents, plugins=plugins)
        self._store_url = store_url
        self._hosts = hosts

    def _load_all(self) -> None:
        """Import none now: an agent is imported where it runs, and a broken one is its own jobs' trouble."""

    async def _drive(
        self, registered: Registered, execution_id: str, work: Callable[[object], Awaitable[ExecutionReport]]
    ) -> ExecutionReport:
        async def drive() -> ExecutionReport:
            return await work(registered.load())

        return await self._hosts.run(registered.name, execution_id, drive, deadline_s=None)


class Queueing(Idempotent, Histories):
    """The part of the service that is about jobs."""

    exposition: Exposition
    """What is counted; asked in a thread."""
    _fleet: HostedFleet | None = None
    _fleet_loop: asyncio.AbstractEventLoop | None = None
    _fleet_stop: asyncio.Event | None = None
    _working: asyncio.Future[None] | None = None

    @property
    def jobs(self) -> Jobs:
        """The fleet. Its coroutines belong to its own loop: await them by `on_fleet`."""
        if self._fleet is None:
            raise Stopping("the server has not started")
        return self._fleet

    async def on_fleet(self, question: Coroutine[Any, Any, T]) -> T:
        """Await something of the fleet in its loop."""
        loop = self._fleet_loop
        if loop is None or loop.is_closed():
            question.close()
            raise Stopping("the server is being shut down")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(question, loop))

    async def start_fleet(self) -> None:
        """Open the queue, and do jobs where this process does them.

        Raises:
            ConfigError: The scheduler's URL is wrong.
            StoreError: It cannot be reached.
        """
        loop = self._fleet_loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_forever, args=(loop,), name="oao-fleet", daemon=True)
        contextvars.Context().run(thread.start)

        async def opened() -> HostedFleet:
            url = self.settings.scheduler
            return HostedFleet(self.hosts, self.settings.store, url, self.store, self.agents, plugins=[self.metrics])

        self._fleet = await self.on_fleet(opened())
        self.exposition = Exposition(self.metrics, store=self.store, stats=asked_of_loop(loop, self._fleet.stats))
        await self.on_fleet(self._fleet.stats())
        if self.settings.works and self.agents.names():
            self._fleet_stop = asyncio.Event()
            self._working = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._work(self._fleet), loop))

    async def _work(self, fleet: HostedFleet) -> None:
        stop = self._fleet_stop
        while stop is not None and not stop.is_set():
            try:
                await fleet.work(self.settings.slots, stop, self.settings.grace_s / 2)
            except OaoError as error:
                # An agent that cannot be imported, or a queue that is away, must not end the server.
                _log.error("no job is done: %s", error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _PAUSE_S)

    async def stop_fleet(self, drain_s: float) -> None:
        """Take no more jobs, hand back those at work, and release the queue. Bounded."""
        loop, fleet, stop = self._fleet_loop, self._fleet, self._fleet_stop
        if loop is None or fleet is None:
            return
        if stop is not None and self._working is not None:
            loop.call_soon_threadsafe(stop.set)
            await asyncio.wait({self._working}, timeout=drain_s + 2 * _LEAVING_S)
        with suppress(Exception):
            await asyncio.wait_for(self.on_fleet(fleet.scheduler.close()), _LEAVING_S)
        loop.call_soon_threadsafe(loop.stop)

    async def queue(self, caller: Caller) -> QueueStats:
        """Return what is in the queue, and who works.

        A tenant is told of its own jobs alone, and of a worker only while that has one of them.
        """
        try:
            stats = await asyncio.wait_for(self.on_fleet(self.jobs.stats()), _ANSWER_S)
        except TimeoutError:
            raise StoreError(f"the queue does not answer within {_ANSWER_S:g} s") from None
        return await self.asked(self._queue_of, caller, stats) if caller.tenant else stats

    def _queue_of(self, caller: Caller, stats: QueueStats) -> QueueStats:
        waiting = self._jobs_of(caller, "QUEUED", _MOST_LISTED)
        delayed = sum(one.not_before > self.clock.time() for one in waiting)
        own = (
            replace(one, running=tuple(id_ for id_ in one.running if self.may_read(caller, id_)))
            for one in stats.workers
        )
        return QueueStats(
            queued=len(waiting) - delayed,
            delayed=delayed,
            running=len(self._jobs_of(caller, "RUNNING", _MOST_LISTED)),
            workers=[one for one in own if one.running],
        )

    async def job_list(self, caller: Caller, status: str = "", limit: int = 50, offset: int = 0) -> list[JobStatus]:
        """Return the newest jobs, or those of one status; `DEAD` for dead letters."""
        return await self.asked(self._jobs_of, caller, status, limit, offset)

    def _jobs_of(self, caller: Caller, status: str, limit: int, offset: int = 0) -> list[JobStatus]:
        found: list[JobStatus] = []
        skipped = 0
        for row in self.store.runs(_MOST_LISTED, query=self.query_for(caller, status=status)):
            # Most runs are no jobs, and the first record says so.
            first = next(iter(self.store.read(row.execution_id)), None)
            if first is not None and job_of([first]) is not None:
                skipped += 1
                if skipped > offset:
                    found.append(status_of(list(self.store.read(row.execution_id))))
            if len(found) >= limit:
                break
        return found

    async def submit(
        self,
        caller: Caller,
        agent: str,
        task: object = None,
        *,
        policy: Sequence[str] = (),
        priority: Priority = "normal",
        delay_s: float = 0.0,
        retries: int | None = None,
        request: Request | None = None,
    ) -> str:
        """Queue a run of a registered agent and return its id; when this returns, the job is not lost any more.

        Raises:
            NotFound: There is no such agent.
            InvalidRequest: A policy cannot be had.
            KeyReused: The key was used for something else.
        """
        registered = self.registered(agent)
        policies = self.policies_for(registered, policy)
        if request is not None:
            earlier = await self.repeated(request)
            if earlier is not None:
                return earlier.execution_id
        try:
            with self.no_other_writer(request):
                return await self.on_fleet(
                    self.jobs.submit(
                        agent,
                        task,
                        execution_id=None if request is None else request.execution_id,
                        principal=caller.principal,
                        policy=policies,
                        priority=priority,
                        delay_s=delay_s,
                        retries=None if retries is None else Retries(times=retries),
                        request="" if request is None else request.digest,
                    )
                )
        except UsageError:
            if request is not None:
                # Somebody else may have used the key at this very moment, for something else.
                await self.repeated(request)
            raise

    async def job(self, caller: Caller, execution_id: str) -> JobStatus:
        """Return how far a job is.

        Raises:
            NotFound: There is no such job.
        """
        return status_of(await self._job_records(caller, execution_id))

    async def _job_records(self, caller: Caller, execution_id: str) -> list[Record]:
        records = await self.asked(self.read_for, caller, execution_id)
        if job_of(records) is None:
            raise NotFound(f"run {execution_id} is no job: nobody queued it")
        return records

    async def wait(self, caller: Caller, execution_id: str, timeout_s: float) -> ExecutionReport | None:
        """Return the report of a job as soon as it is over or waits for a person; None where it is not in time.

        Holds no worker and no thread meanwhile.

        Raises:
            NotFound: There is no such job.
        """
        records = await self._job_records(caller, execution_id)
        if not _is_at_rest(records):
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    async for more in self.feed.follow(execution_id, len(records)):
                        records.extend(more)
                        if _is_at_rest(records):
                            break
        return report_of(records) if _is_at_rest(records) else None

    async def until_over(self, execution_id: str, timeout_s: float) -> None:
        """Wait until a run is over, at most for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                async for _ in self.feed.follow(execution_id, 0):
                    pass

    async def cancel_job(self, caller: Caller, execution_id: str) -> JobStatus:
        """End a job that is queued, running or waiting for a person; return how far it is then.

        Raises:
            NotFound: There is no such job.
            WrongState: It is over.
        """
        status = status_of(await self._job_records(caller, execution_id))
        if status.is_over:
            raise WrongState(f"job {execution_id} is over ({status.status}); nothing was changed")
        return await self.on_fleet(self.jobs.cancel(execution_id, caller.principal))

    async def redrive(self, caller: Caller, execution_id: str) -> JobStatus:
        """Queue a dead letter again, or a job that a person has answered; return how far it is then.

        Raises:
            NotFound: There is no such job.
            WrongState: It is over.
            BusyError: A worker has it.
        """
        status = status_of(await self._job_records(caller, execution_id))
        if status.is_over:
            raise WrongState(f"job {execution_id} is over ({status.status}); nothing was changed")
        return await self.on_fleet(self.jobs.redrive(execution_id, caller.principal))


def _is_at_rest(records: Sequence[Record]) -> bool:
    status = status_of(records)
    return status.is_over or status.is_waiting


def _forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    except UsageError:
        _log.exception("the fleet's loop ended")
    finally:
        loop.close()
