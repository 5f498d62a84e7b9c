"""Carries jobs by a Redis or Valkey server, with Docket. Owns what a fleet's processes ask of the queue.

The queue wakes workers and is never the only record: a job is in the set of open ones first, and a worker of the fleet
adds again what the queue forgot. A job may be delivered twice; the store of its journal lets only one writer in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from oao_harness.errors import ConfigError, StoreError
from oao_harness.schedulers.redis_ended import Endings
from oao_harness.schedulers.redis_entries import TASK, arguments_of, id_of, key_of
from oao_harness.schedulers.redis_lanes import LANES, NESTED, Lane, lane_of, open_lanes
from oao_harness.schedulers.redis_open import OpenJobs
from oao_harness.schedulers.redis_urls import failure, inspect, make_client, read_url
from oao_harness.schedulers.redis_worker import FleetWorker, Limits
from oao_hookspecs.schedulers import Handler, Job, QueueStats, WorkerSeen

__all__ = ["RedisScheduler"]

_TRIES = 3
_SAFEGUARD_KEY = "__safeguard__:*"


@dataclass(frozen=True, slots=True)
class _Front:
    """What a process asks the server with, in one event loop."""

    loop: asyncio.AbstractEventLoop
    stack: AsyncExitStack
    client: Any
    lanes: Mapping[str, Lane]
    jobs: OpenJobs
    endings: Endings


class RedisScheduler:
    """Jobs on a server, for workers on any machine.

    Args:
        url: `redis://[[user]:password@]host[:port][/db][?prefix=NAME]`, or `rediss://` for TLS. The prefix is what the
            keys of the fleet begin with, `oao:jobs` where the URL does not say.
        redelivery_s: Seconds after which a worker that is not heard of loses its jobs. All workers need the same.
        tenant_limit: How many jobs of one tenant may run at once in the whole fleet; None for any number.
        agent_limits: How many jobs of an agent may, by its name. Parts of other runs do not count against a limit.

    Raises:
        ConfigError: The URL or a limit is wrong.
    """

    durable = True
    """Jobs outlive the process that submitted them, and every process sees them."""

    def __init__(
        self,
        url: str,
        *,
        redelivery_s: float = 30.0,
        tenant_limit: int | None = None,
        agent_limits: Mapping[str, int] | None = None,
    ) -> None:
        if not redelivery_s >= 0.1:
            raise ConfigError(f"redelivery_s is {redelivery_s!r}; give 0.1 seconds or more, for example 30")
        self._place = read_url(url)
        self._redelivery_s = redelivery_s
        self._limits = Limits(tenant=tenant_limit, agents=dict(agent_limits or {}))
        for what, most in (("tenant_limit", tenant_limit), *self._limits.agents.items()):
            if most is not None and most < 1:
                raise ConfigError(f"the limit {what!r} is {most}; give 1 or more")
        self._front: _Front | None = None
        self._opening = asyncio.Lock()
        self._workers: list[FleetWorker] = []
        self._closed = False

    @property
    def name(self) -> str:
        """The server, without user and password."""
        return self._place.name

    async def submit(self, job: Job) -> None:
        """Let a worker have the job; see `Scheduler.submit`. One that runs already is delivered once more after it.

        Args:
            job: The job.

        Raises:
            ConfigError: The priority is none, or the server cannot be used.
            StoreError: The server cannot be reached; the job may or may not have been submitted.
        """
        if job.priority not in LANES:
            raise ConfigError(f"the priority of a job is {job.priority!r}; give {', '.join(LANES)}")
        async with self._asking() as front:
            key = key_of(job.execution_id)
            await front.jobs.add(key, job)
            when = datetime.fromtimestamp(job.not_before, UTC) if job.not_before else None
            await front.lanes[lane_of(job)].add(TASK, when, key)(**arguments_of(job))

    async def work(self, handler: Handler, *, slots: int, stop: asyncio.Event) -> None:
        """Hand jobs to a handler; see `Scheduler.work`.

        A handler that raises is called again later. Parts of other runs have `slots` of their own.

        Args:
            handler: Awaited once for each delivery.
            slots: How many at once, >= 1.
            stop: Set by who wants it to end.

        Raises:
            ConfigError: There is no slot, or the server cannot be used.
            StoreError: The server cannot be reached at the start; later, a worker waits for it.
        """
        if slots < 1:
            raise ConfigError(f"a worker has {slots} slots; give 1 or more")
        async with self._asking():
            pass
        worker = FleetWorker(self._place, handler, slots, self._limits, self._redelivery_s)
        self._workers.append(worker)
        try:
            await worker.run(stop)
        finally:
            self._workers.remove(worker)

    async def cancel(self, execution_id: str) -> None:
        """Forget a queued job, or cancel the handler that is at work on it; see `Scheduler.cancel`."""
        key = key_of(execution_id)
        async with self._asking() as front:
            # That it is not open is what lasts: a delivery of it is not begun, and one at work is cancelled.
            job = await front.jobs.remove(key)
            if job is not None:
                await front.lanes[lane_of(job)].cancel(key)

    async def ended(self, execution_id: str) -> None:
        """Tell everybody who waits for a run that it has ended, or waits for a person.

        Of a job that a worker here has at work they are told when its delivery ends, in the same step.
        """
        async with self._asking() as front:
            key = key_of(execution_id)
            channel = front.endings.channel(key)
            if any(worker.end_tells(key, channel) for worker in self._workers):
                return
            await front.endings.tell(execution_id)

    async def wait(self, execution_id: str, timeout_s: float) -> bool:
        """Return True as soon as `ended` is told from now on, False after the time."""
        async with self._asking() as front:
            return await front.endings.wait(execution_id, timeout_s)

    async def stats(self) -> QueueStats:
        """Return what is in the queue; a job that waits for a limit is queued."""
        async with self._asking() as front:
            delayed = 0
            for lane in front.lanes.values():
                delayed += int(await front.client.zcard(lane.queue_key))
                async for _ in front.client.zscan_iter(lane.queue_key, match=_SAFEGUARD_KEY, count=1000):
                    delayed -= 1
            running = await front.jobs.running()
            count = await front.jobs.count()
            seen = await next(iter(front.lanes.values())).workers()
            return QueueStats(
                queued=max(0, count - len(running) - delayed),
                delayed=delayed,
                running=len(running),
                workers=tuple(
                    WorkerSeen(
                        name=worker.name,
                        last_heard=worker.last_seen.timestamp(),
                        running=sorted(id_of(key) for key, name in running.items() if name == worker.name),
                    )
                    for worker in seen
                ),
            )

    async def close(self) -> None:
        """Close the connections."""
        self._closed = True
        front, self._front = self._front, None
        if front is not None and front.loop is asyncio.get_running_loop():
            await front.stack.aclose()

    @asynccontextmanager
    async def _asking(self) -> AsyncGenerator[_Front, None]:
        try:
            yield await self._opened()
        except (RedisError, OSError) as error:
            raise failure(self._place, error) from error

    async def _opened(self) -> _Front:
        if self._closed:
            raise StoreError(f"the scheduler {self._place.name} is closed")
        loop = asyncio.get_running_loop()
        if self._front is None or self._front.loop is not loop:
            # Connections belong to a loop; those of one that is over are gone with it.
            if self._front is not None and self._front.loop.is_closed():
                self._front, self._opening = None, asyncio.Lock()
            async with self._opening:
                if self._front is None or self._front.loop is not loop:
                    self._front = await self._open(loop)
        return self._front

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Front:
        async with AsyncExitStack() as stack:

            def client(tries: int) -> Any:
                made = make_client(Redis, self._place, connections=200, tries=tries)
                stack.push_async_callback(made.aclose)
                closing: Callable[[], Any] = made.connection_pool.disconnect
                stack.push_async_callback(closing)
                return made

            asking = client(_TRIES)
            await inspect(self._place, asking)
            lanes = await open_lanes(stack, self._place, dict.fromkeys((*LANES, NESTED), asking))
            endings = Endings(asking, client(0), self._place.prefix)
            stack.push_async_callback(endings.close)
            return _Front(loop, stack.pop_all(), asking, lanes, OpenJobs(asking, self._place.prefix), endings)
