"""Dramatiq on Redis. A sweep for jobs of dead workers is by chance, here with every command (by default 1 of 1,000)."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO

from benchmarks.engines.job import Send, settings, work

TOLD = settings()
broker = RedisBroker(url=TOLD.redis, heartbeat_timeout=int(TOLD.lease_s * 1000), maintenance_chance=1_000_000)
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=3)
async def job(number: int, seconds: float) -> None:
    await work(number, seconds)


@asynccontextmanager
async def producer() -> AsyncIterator[Send]:
    async def send(number: int, seconds: float) -> None:
        job.send(number, seconds)

    yield send


def worker() -> None:
    # fmt: off
    os.execv(sys.executable, [
        sys.executable, "-m", "dramatiq", "benchmarks.engines.dramatiq", "--processes", "1",
        "--threads", str(TOLD.slots),
    ])
    # fmt: on
