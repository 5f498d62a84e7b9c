"""streaQ: Redis streams and functions, with a client of its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streaq import Worker

from benchmarks.engines.job import Send, settings, work

TOLD = settings()
engine = Worker(redis_url=TOLD.redis, concurrency=TOLD.slots, handle_signals=False, idle_timeout=TOLD.lease_s)


@engine.task(max_tries=5)
async def job(number: int, seconds: float) -> int:
    return await work(number, seconds)


@asynccontextmanager
async def producer() -> AsyncIterator[Send]:
    async def send(number: int, seconds: float) -> None:
        await job.enqueue(number, seconds)

    async with engine:
        yield send


def worker() -> None:
    logging.getLogger("streaq").setLevel(logging.WARNING)
    engine.run_sync()
