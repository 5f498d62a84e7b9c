"""Taskiq on a Redis stream, with results in Redis."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.engines.job import Send, settings, work

TOLD = settings()
broker = RedisStreamBroker(TOLD.redis, idle_timeout=int(TOLD.lease_s * 1000), xread_block=200).with_result_backend(
    RedisAsyncResultBackend(TOLD.redis, result_ex_time=600)
)


@broker.task
async def job(number: int, seconds: float) -> int:
    return await work(number, seconds)


@asynccontextmanager
async def producer() -> AsyncIterator[Send]:
    await broker.startup()
    yield job.kiq
    await broker.shutdown()


def worker() -> None:
    # fmt: off
    os.execv(sys.executable, [
        sys.executable, "-m", "taskiq", "worker", "benchmarks.engines.taskiq:broker", "--workers", "1",
        "--max-async-tasks", str(TOLD.slots), "--log-level", "ERROR",
    ])
    # fmt: on
