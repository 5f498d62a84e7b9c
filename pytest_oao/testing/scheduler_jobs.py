"""What the tests of a scheduler share: a handler that writes down what it got, workers here and in other processes."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import ContextVar
from pathlib import Path

from oao_hookspecs.schedulers import Handler, Job, Later, Scheduler

__all__ = ["Jobs", "at_work", "emptied", "impatient", "run", "until", "work_for_ever", "worker_process"]

SOON_S = 20.0
"""What must happen happens within this; that it took longer is a failure, not a slow machine."""
_EXPECTED_NOT_S = 4.0
"""The same for what is declared never to happen."""
_patience_s: ContextVar[float] = ContextVar("patience_s", default=SOON_S)


@contextlib.contextmanager
def impatient() -> Generator[None]:
    """Wait for less, because the test is expected to fail."""
    token = _patience_s.set(_EXPECTED_NOT_S)
    try:
        yield
    finally:
        _patience_s.reset(token)


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: It was not so in time.
    """
    give_up = time.monotonic() + _patience_s.get()
    while not true():
        assert time.monotonic() < give_up, "it did not happen in time"
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def at_work(scheduler: Scheduler, handler: Handler, slots: int = 1) -> AsyncGenerator[asyncio.Event, None]:
    """Have a worker at work; yield what stops it, and wait for its end."""
    stop = asyncio.Event()
    worker = asyncio.create_task(scheduler.work(handler, slots=slots, stop=stop))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(SOON_S):
            await worker


def run(scheduler: Scheduler, body: Callable[[], Awaitable[None]]) -> None:
    """Run a test's body in a loop of its own, and close the scheduler there."""

    async def whole() -> None:
        try:
            async with asyncio.timeout(3 * SOON_S):
                await body()
        finally:
            await scheduler.close()

    asyncio.run(whole())


class Jobs:
    """A handler that writes down what it was given.

    Args:
        takes_s: Seconds that a job takes.
    """

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.begun: list[Job] = []
        self.began_at: dict[str, float] = {}
        """Unix seconds, by the id of the run."""
        self.done: list[str] = []
        self.cancelled: list[str] = []
        self.at_once = 0
        self.most_at_once = 0

    @property
    def ids(self) -> list[str]:
        """Ids of the runs, in the order in which they began."""
        return [job.execution_id for job in self.begun]

    async def __call__(self, job: Job) -> Later | None:
        """Do a job."""
        self.begun.append(job)
        self.began_at[job.execution_id] = time.time()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled.append(job.execution_id)
            raise
        finally:
            self.at_once -= 1
        self.done.append(job.execution_id)
        return None


async def emptied(scheduler: Scheduler) -> None:
    """Wait until nothing is queued, delayed or running.

    Raises:
        AssertionError: It did not happen in time.
    """
    give_up = time.monotonic() + _patience_s.get()
    while True:
        stats = await scheduler.stats()
        if not (stats.queued or stats.delayed or stats.running):
            return
        assert time.monotonic() < give_up, f"the queue is not empty: {stats}"
        await asyncio.sleep(0.02)


@contextlib.contextmanager
def worker_process(open_again: Callable[[], Scheduler], folder: Path) -> Generator[int, None, None]:
    """Have a worker in a process of its own, whose jobs never end; yield the id of the process."""
    process = multiprocessing.get_context("spawn").Process(target=work_for_ever, args=(open_again, folder))
    process.start()
    try:
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()


def work_for_ever(open_again: Callable[[], Scheduler], folder: Path) -> None:
    """Be a worker whose jobs never end, and which writes down what it was given: a file for each job."""

    async def handler(job: Job) -> None:
        (folder / job.execution_id).touch()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            (folder / f"{job.execution_id}.cancelled").touch()
            raise

    async def work() -> None:
        await open_again().work(handler, slots=4, stop=asyncio.Event())

    asyncio.run(work())
