"""A fleet of ours: each job is a governed run with a durable journal on the same server."""

from __future__ import annotations

import asyncio
import cProfile
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.engines.job import Send, settings, work
from oao_harness.fleet.agents import Agents
from oao_harness.fleet.worker import Fleet
from oao_harness.schedulers.redis import RedisScheduler

TOLD = settings()
# Source: the defaults, 24 s of 30 s.
LEASE_OF_REDELIVERY = 0.8


async def agent(task: Any) -> int:
    return await work(task["job"], task["seconds"])


def opened() -> Fleet:
    scheduler = RedisScheduler(TOLD.redis, redelivery_s=TOLD.lease_s)
    return Fleet(scheduler, TOLD.redis, Agents.of({"job": agent}), lease_s=TOLD.lease_s * LEASE_OF_REDELIVERY)


@asynccontextmanager
async def producer() -> AsyncIterator[Send]:
    fleet = opened()

    async def send(job: int, seconds: float) -> None:
        await fleet.submit("job", {"job": job, "seconds": seconds}, execution_id=f"job-{job}")

    await fleet.stats()
    yield send
    await fleet.close()


async def serve() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    fleet = opened()
    await fleet.work(slots=TOLD.slots, stop=stop)
    await fleet.close()


def worker() -> None:
    if not TOLD.profile:
        asyncio.run(serve())
        return
    profile = cProfile.Profile()
    profile.runcall(asyncio.run, serve())
    profile.dump_stats(TOLD.profile)
