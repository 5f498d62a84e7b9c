"""Huey on Redis, in threads. Jobs of a dead worker are lost: at most once, by design."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from huey import RedisHuey

from benchmarks.engines.job import Send, settings, work_in_thread

TOLD = settings()
engine = RedisHuey("benchmark", url=TOLD.redis)


@engine.task(retries=3)
def job(number: int, seconds: float) -> int:
    return work_in_thread(number, seconds)


@asynccontextmanager
async def producer() -> AsyncIterator[Send]:
    async def send(number: int, seconds: float) -> None:
        job(number, seconds)

    yield send


def worker() -> None:
    # fmt: off
    os.execv(sys.executable, [
        sys.executable, "-m", "huey.bin.huey_consumer", "benchmarks.engines.huey.engine",
        "-w", str(TOLD.slots), "-k", "thread", "-q",
    ])
    # fmt: on
