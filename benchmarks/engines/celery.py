"""Celery on Redis, in threads, acknowledging late, with a sweep every second (by default every 100)."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from celery import Celery

from benchmarks.engines.job import Send, settings, work_in_thread

TOLD = settings()
app = Celery("benchmark", broker=TOLD.redis, backend=TOLD.redis)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "visibility_timeout": TOLD.lease_s,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
)


@app.task
def job(number: int, seconds: float) -> int:
    return work_in_thread(number, seconds)


@asynccontextmanager
async def producer() -> AsyncIterator[Send]:
    async def send(number: int, seconds: float) -> None:
        job.delay(number, seconds)

    yield send


def worker() -> None:
    # fmt: off
    os.execv(sys.executable, [
        sys.executable, "-m", "celery", "-A", "benchmarks.engines.celery", "worker", "-P", "threads",
        "-c", str(TOLD.slots), "-l", "ERROR", "--without-gossip", "--without-mingle",
    ])
    # fmt: on
