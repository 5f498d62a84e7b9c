"""SAQ on Redis. A job must say itself that it is alive, and must be allowed to be tried again, or it is aborted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from saq import Queue, Worker

from benchmarks.engines.job import Send, settings, work

TOLD = settings()


async def beat(running: Any) -> None:
    while True:
        await asyncio.sleep(1)
        await running.update()


async def job(ctx: Any, *, number: int, seconds: float) -> int:
    beating = asyncio.create_task(beat(ctx["job"])) if seconds else None
    try:
        return await work(number, seconds)
    finally:
        if beating is not None:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating


@asynccontextmanager
async def producer() -> AsyncIterator[Send]:
    queue = Queue.from_url(TOLD.redis)
    await queue.connect()

    async def send(number: int, seconds: float) -> None:
        await queue.enqueue("job", number=number, seconds=seconds, retries=5, timeout=600, heartbeat=int(TOLD.lease_s))

    yield send
    await queue.disconnect()


async def serve() -> None:
    queue = Queue.from_url(TOLD.redis)
    await queue.connect()
    # By default every 60 s.
    await Worker(queue, [job], concurrency=TOLD.slots, timers={"sweep": 1}).start()


def worker() -> None:
    asyncio.run(serve())
