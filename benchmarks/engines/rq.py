"""RQ: a process forked for each job, and a process for each slot. A dead worker's jobs come back after 60 s or more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis import Redis
from rq import Queue, Retry
from rq.worker import Worker
from rq.worker_pool import WorkerPool

from benchmarks.engines.job import Send, settings, work_in_thread

TOLD = settings()


def job(number: int, seconds: float) -> int:
    return work_in_thread(number, seconds)


class EagerWorker(Worker):
    """Looks for jobs of dead workers as often as it can be told to."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(
            *args, **{**options, "maintenance_interval": 5, "job_monitoring_interval": 5, "worker_ttl": 20}
        )


@asynccontextmanager
async def producer() -> AsyncIterator[Send]:
    queue = Queue("benchmark", connection=Redis.from_url(TOLD.redis))

    async def send(number: int, seconds: float) -> None:
        queue.enqueue(job, number, seconds, retry=Retry(max=3), job_timeout=600)

    yield send


def worker() -> None:
    pool = WorkerPool(
        ["benchmark"], connection=Redis.from_url(TOLD.redis), num_workers=TOLD.slots, worker_class=EagerWorker
    )
    pool.start()
