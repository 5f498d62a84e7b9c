"""The scheduler inside of one process: asyncio and nothing else. What waits is lost with the process; its store knows.

A fleet over it goes on all the same: who works searches the store for runs that wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import itertools
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from oao_harness.errors import StoreError, UsageError
from oao_harness.schedulers.fair_queue import FairQueue
from oao_hookspecs import Handler, Job, Later, QueueStats, WorkerSeen

__all__ = ["LocalScheduler"]

_log: Final = logging.getLogger(__name__)

_BROKEN_S: Final = 1.0
"""Seconds until a job is delivered again whose handler raised, which none should."""
_LOOK_S: Final = 30.0
"""Seconds after which the time is read again at most: somebody may have put the clock forward."""
_names: Final = itertools.count(1)


@dataclass(slots=True, eq=False)
class _Worker:
    """One call of `work`."""

    name: str
    handler: Handler
    slots: int
    loop: asyncio.AbstractEventLoop
    context: contextvars.Context
    """What handlers run in: never in that of who submits, which may be another run's."""
    stop: asyncio.Event
    gives_up: bool = False
    at_work: dict[asyncio.Task[Later | None], _Delivery] = field(
        default_factory=dict[asyncio.Task[Later | None], "_Delivery"]
    )

    @property
    def is_taking(self) -> bool:
        """False as soon as it was told to stop."""
        return not self.gives_up and not self.stop.is_set()

    def running(self) -> tuple[str, ...]:
        """Return the ids of the runs at work."""
        return tuple(one.job.execution_id for one in self.at_work.values())

    def free(self, *, nested: bool) -> int:
        """Return how many slots are free; parts of other runs have as many of their own."""
        taken = sum(one.job.nested == nested and not (nested and one.waits) for one in self.at_work.values())
        return self.slots - taken if self.is_taking else 0


@dataclass(slots=True, eq=False)
class _Delivery:
    """A job that a handler is at work on."""

    job: Job
    order: int
    task: asyncio.Task[Later | None] | None = None
    is_cancelled: bool = False
    again: Job | None = None
    """The same job, submitted since it was cancelled."""
    waits: int = 0
    """How many calls of `wait` the handler is in."""


_delivery: Final[contextvars.ContextVar[_Delivery | None]] = contextvars.ContextVar("oao_delivery", default=None)


class LocalScheduler:
    """Carries jobs to workers of this process and this event loop. Implements `oao_hookspecs.Scheduler`.

    Order: by priority, strictly; within a priority the tenants take turns; a tenant's jobs are first in, first out.
    A job that was handed back (`Later`) lines up again at the end when its time has come.

    Parts of other runs (`Job.nested`) have `slots` slots of their own, do not count for their tenant, and free their
    slot while they wait for another job by `wait`. So runs that wait for their parts never wait for ever.

    Args:
        tenant_limit: Jobs of one tenant at work at the same time, >= 1; None without a limit. Jobs of nobody (an
            empty tenant) are not limited.
        agent_limits: The same for agents, by name. A job that waits for another by `wait` does not count.

    Raises:
        ConfigError: A limit is no whole number >= 1.
    """

    durable: Final = False
    """What waits here dies with the process."""

    def __init__(self, tenant_limit: int | None = None, agent_limits: Mapping[str, int] | None = None) -> None:
        self._queue = FairQueue(tenant_limit, agent_limits)
        self._delayed: dict[str, Job] = {}
        self._times: list[tuple[float, int, str]] = []
        """A heap of when delayed jobs are due; an entry whose job is not delayed any more counts for nothing."""
        self._due: dict[str, int] = {}
        """Order of the delayed jobs, which tells the entry of `_times` that counts."""
        self._running: dict[str, _Delivery] = {}
        self._workers: list[_Worker] = []
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._orders = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def submit(self, job: Job) -> None:
        """Let a worker have the job; see `Scheduler.submit`.

        Raises:
            StoreError: The scheduler is closed.
        """
        self._require_open()
        running = self._running.get(job.execution_id)
        if running is not None:
            if running.is_cancelled:
                running.again = job
            return
        if job.execution_id in self._queue or job.execution_id in self._delayed:
            return
        self._put(job, job.not_before)
        self._hand_out()

    async def work(self, handler: Handler, *, slots: int, stop: asyncio.Event) -> None:
        """Hand jobs to a handler until `stop` is set; see `Scheduler.work`. Several of these share the queue.

        Raises:
            UsageError: `slots` is no whole number >= 1.
            StoreError: The scheduler is closed.
        """
        self._require_open()
        if isinstance(slots, bool) or slots < 1:
            raise UsageError(f"slots={slots!r}: give a whole number, at least 1")
        worker = _Worker(
            name=f"local-{os.getpid()}-{next(_names)}",
            handler=handler,
            slots=slots,
            loop=asyncio.get_running_loop(),
            context=contextvars.copy_context(),
            stop=stop,
        )
        self._workers.append(worker)
        try:
            self._hand_out()
            await stop.wait()
            while worker.at_work:
                await asyncio.wait(worker.at_work)
        finally:
            worker.gives_up = True
            for task in worker.at_work:
                task.cancel()
            try:
                while worker.at_work:
                    await asyncio.wait(worker.at_work)
            finally:
                self._workers.remove(worker)
                self._set_timer()

    async def cancel(self, execution_id: str) -> None:
        """Forget a queued job, or cancel the handler that is at work on it; see `Scheduler.cancel`."""
        if execution_id in self._queue:
            self._queue.remove(execution_id)
        if self._delayed.pop(execution_id, None) is not None:
            del self._due[execution_id]
        running = self._running.get(execution_id)
        if running is not None:
            running.is_cancelled, running.again = True, None
            if running.task is not None:
                running.task.cancel("oao: the job is cancelled")

    async def ended(self, execution_id: str) -> None:
        """Tell everybody who waits for a run that it has ended, or waits for a person."""
        for future in self._waiting.pop(execution_id, ()):
            if not future.done():
                future.set_result(None)

    async def wait(self, execution_id: str, timeout_s: float) -> bool:
        """Return True as soon as `ended` is told from now on, False after the time."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(execution_id, set()).add(future)
        own = _delivery.get()
        try:
            self._pause(own)
            await asyncio.wait({future}, timeout=timeout_s)
            return future.done()
        finally:
            self._go_on(own)
            if (waiting := self._waiting.get(execution_id)) is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[execution_id]

    async def stats(self) -> QueueStats:
        """Return what is in the queue."""
        self._ripen()
        now = time.time()
        return QueueStats(
            queued=len(self._queue),
            delayed=len(self._delayed),
            running=len(self._running),
            workers=tuple(WorkerSeen(name=one.name, last_heard=now, running=one.running()) for one in self._workers),
        )

    async def close(self) -> None:
        """Forget all jobs that wait, and take no more. Who works here ends by its `stop`."""
        self._is_closed = True
        for id_ in [*self._delayed, *self._queue.waiting()]:
            await self.cancel(id_)
        self._set_timer()

    def _require_open(self) -> None:
        if self._is_closed:
            raise StoreError("the local scheduler is closed; open another one")

    def _put(self, job: Job, not_before: float, order: int | None = None) -> None:
        order = next(self._orders) if order is None else order
        if not_before <= time.time():
            self._queue.put(job, order)
            return
        self._delayed[job.execution_id], self._due[job.execution_id] = job, order
        heapq.heappush(self._times, (not_before, order, job.execution_id))

    def _ripen(self) -> None:
        """Queue what is due."""
        now = time.time()
        while self._times:
            due, order, id_ = self._times[0]
            counts = self._due.get(id_) == order
            if counts and due > now:
                return
            heapq.heappop(self._times)
            if counts:
                del self._due[id_]
                self._queue.put(self._delayed.pop(id_), next(self._orders))

    def _hand_out(self) -> None:
        """Give jobs to free slots, as long as there are both."""
        self._ripen()
        for nested in (True, False):
            while worker := max(self._workers, key=functools.partial(_Worker.free, nested=nested), default=None):
                if worker.free(nested=nested) < 1 or (found := self._queue.take(nested=nested)) is None:
                    break
                self._begin(worker, *found)
        self._set_timer()

    def _begin(self, worker: _Worker, order: int, job: Job) -> None:
        delivery = _Delivery(job=job, order=order)
        self._running[job.execution_id] = delivery
        inside = worker.context.copy()
        inside.run(_delivery.set, delivery)
        task = worker.loop.create_task(
            _handled(worker.handler, job), name=f"oao-job-{job.execution_id}", context=inside
        )
        delivery.task = task
        worker.at_work[task] = delivery
        # Not in the task: one that is cancelled before its first step never runs.
        task.add_done_callback(functools.partial(self._ended, worker, delivery))

    def _ended(self, worker: _Worker, delivery: _Delivery, task: asyncio.Task[Later | None]) -> None:
        job = delivery.job
        del worker.at_work[task]
        del self._running[job.execution_id]
        self._queue.done(job, waits=bool(delivery.waits))
        if delivery.is_cancelled:
            if not task.cancelled():
                task.exception()
            if delivery.again is not None:
                self._put(delivery.again, delivery.again.not_before)
        elif task.cancelled() and worker.gives_up:
            # The next worker gets it, in its old place.
            self._put(job, 0.0, delivery.order)
        elif task.cancelled():
            _log.error("the handler of job %s cancelled itself; it is delivered again", job.execution_id)
            self._put(job, time.time() + _BROKEN_S)
        elif (error := task.exception()) is not None:
            _log.error("the handler of job %s raised; it is delivered again", job.execution_id, exc_info=error)
            self._put(job, time.time() + _BROKEN_S)
        elif (later := task.result()) is not None:
            self._put(job, time.time() + later.after_s)
        self._hand_out()

    def _pause(self, own: _Delivery | None) -> None:
        if own is None or self._running.get(own.job.execution_id) is not own:
            return
        own.waits += 1
        if own.waits == 1:
            self._queue.pause(own.job)
            self._hand_out()

    def _go_on(self, own: _Delivery | None) -> None:
        if own is None or self._running.get(own.job.execution_id) is not own:
            return
        own.waits -= 1
        if own.waits == 0:
            self._queue.go_on(own.job)

    def _set_timer(self) -> None:
        """Look again when the next delayed job is due, as long as somebody works."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        taking = next((one for one in self._workers if one.is_taking), None)
        if taking is not None and self._times:
            left_s = self._times[0][0] - time.time()
            self._timer = taking.loop.call_later(min(max(0.0, left_s), _LOOK_S), self._hand_out)


async def _handled(handler: Handler, job: Job) -> Later | None:
    return await handler(job)
