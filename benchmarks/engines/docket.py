"""Docket as it is, with the interval of 20 ms that our scheduler uses too (by default 250 ms)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from docket import Docket, Worker

from benchmarks.engines.job import Send, settings, work

TOLD = settings()


async def job(number: int, seconds: float) -> int:
    return await work(number, seconds)


def opened() -> Docket:
    docket = Docket(name="bare", url=TOLD.connections)
    docket.register(job)
    return docket


@asynccontextmanager
async def producer() -> AsyncIterator[Send]:
    async with opened() as docket:

        async def send(number: int, seconds: float) -> None:
            await docket.add(job)(number, seconds)

        yield send


async def serve() -> None:
    async with (
        opened() as docket,
        Worker(
            docket,
            concurrency=TOLD.slots,
            minimum_check_interval=timedelta(milliseconds=20),
            redelivery_timeout=timedelta(seconds=TOLD.lease_s),
        ) as worker,
    ):
        await worker.run_forever()


def worker() -> None:
    asyncio.run(serve())
