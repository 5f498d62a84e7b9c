"""What every scheduler promises, as tests that the author of a scheduler inherits.

```python
class TestMyScheduler(SchedulerConformance):
    REDELIVERY_S = 1.0

    @pytest.fixture
    def open_again(self, server):
        return functools.partial(MyScheduler, server.url, redelivery_s=1.0)

    @pytest.fixture
    def scheduler(self, open_again):
        return open_again()
```
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from oao_harness.errors import StoreError
from oao_hookspecs.schedulers import Job, Later, QueueStats, Scheduler
from pytest_oao.testing.capabilities import Declaring, needs
from pytest_oao.testing.scheduler_jobs import Jobs, at_work, emptied, impatient, run, until, worker_process

__all__ = ["SchedulerConformance"]

_ODD_IDS = ("a b", "zwölf-🚀", "{braces}:*?[x]", "' or 1=1 --", "half \ud83d", "nul \0", "x" * 500, "open", "a/b%20")


class SchedulerConformance(Declaring):
    """Inherit it in a class whose name starts with `Test`, and override the fixture `scheduler`.

    Override `open_again` where other processes can open the same queue. The queue must be empty, and no other worker's.

    A scheduler may declare (`CANNOT`) that it cannot `priorities`, `delays` (`Job.not_before`), `nested` (slots for
    parts of other runs), `takeover` (jobs of a worker that was killed) or `processes` (cancel a job elsewhere).
    """

    REDELIVERY_S = 30.0
    """Seconds after which a worker that died loses its jobs; make it small where you override `open_again`."""

    @pytest.fixture
    def scheduler(self) -> Scheduler:
        """Override this: return the scheduler to test. Each test closes it in its own event loop."""
        raise NotImplementedError("override the fixture `scheduler` in your class")

    @pytest.fixture
    def open_again(self) -> Callable[[], Scheduler] | None:
        """Override this where you can: return what opens the same queue once more; it must survive a pickle."""
        return None

    def failing(self) -> contextlib.AbstractContextManager[None]:
        """Do not wait long for what is declared never to happen."""
        return impatient()

    # Delivery

    def test_it_is_a_scheduler(self, scheduler: Scheduler) -> None:
        """It has the methods of one, and can be closed twice."""

        async def body() -> None:
            assert isinstance(scheduler, Scheduler)
            await scheduler.close()

        run(scheduler, body)

    def test_a_job_arrives_as_it_was_submitted(self, scheduler: Scheduler) -> None:
        """Every field of it, whatever the id and the names look like."""

        async def body() -> None:
            wanted = [
                Job(execution_id=odd, agent=f"agent {odd}", tenant=odd, priority=priority)
                for odd in _ODD_IDS
                for priority in ("normal",)
            ]
            jobs = Jobs()
            async with at_work(scheduler, jobs, slots=3):
                for job in wanted:
                    await scheduler.submit(job)
                await until(lambda: len(jobs.done) == len(wanted))
            assert sorted(jobs.begun, key=repr) == sorted(wanted, key=repr)

        run(scheduler, body)

    def test_jobs_wait_for_a_worker(self, scheduler: Scheduler) -> None:
        """What was submitted while nobody was at work is done in the order it came."""

        async def body() -> None:
            ids = [f"run-{n}" for n in range(12)]
            for execution_id in ids:
                await scheduler.submit(Job(execution_id=execution_id, agent="a"))
            jobs = Jobs()
            async with at_work(scheduler, jobs):
                await until(lambda: len(jobs.done) == len(ids))
            assert jobs.ids == ids

        run(scheduler, body)

    @needs("priorities")
    def test_a_higher_priority_goes_first(self, scheduler: Scheduler) -> None:
        """And within a priority, who came first."""

        async def body() -> None:
            for name, priority in (("l", "low"), ("n", "normal"), ("h1", "high"), ("h2", "high")):
                await scheduler.submit(Job(execution_id=name, agent="a", priority=priority))  # type: ignore[arg-type]
            jobs = Jobs(takes_s=0.01)
            async with at_work(scheduler, jobs):
                await until(lambda: len(jobs.done) == 4)
            assert jobs.ids == ["h1", "h2", "n", "l"]

        run(scheduler, body)

    def test_no_more_at_once_than_there_are_slots(self, scheduler: Scheduler) -> None:
        """Over all priorities; and all slots are used."""

        async def body() -> None:
            for n in range(24):
                priority = ("high", "normal", "low")[n % 3]
                await scheduler.submit(Job(execution_id=f"r{n}", agent="a", priority=priority))  # type: ignore[arg-type]
            jobs = Jobs(takes_s=0.03)
            async with at_work(scheduler, jobs, slots=4):
                await until(lambda: len(jobs.done) == 24)
            assert jobs.most_at_once == 4

        run(scheduler, body)

    @needs("nested")
    def test_a_nested_job_has_a_slot_of_its_own(self, scheduler: Scheduler) -> None:
        """The job that waits for it has the only other one."""

        async def body() -> None:
            part_done = asyncio.Event()

            async def handler(job: Job) -> None:
                if job.nested:
                    part_done.set()
                else:
                    await scheduler.submit(Job(execution_id="part", agent="a", nested=True))
                    await part_done.wait()

            whole: list[str] = []

            async def noted(job: Job) -> None:
                await handler(job)
                whole.append(job.execution_id)

            async with at_work(scheduler, noted):
                await scheduler.submit(Job(execution_id="whole", agent="a"))
                await until(lambda: set(whole) == {"part", "whole"})

        run(scheduler, body)

    @needs("delays")
    def test_a_job_is_not_begun_before_its_time(self, scheduler: Scheduler) -> None:
        """And soon after it."""

        async def body() -> None:
            jobs = Jobs()
            async with at_work(scheduler, jobs):
                not_before = time.time() + 0.6
                await scheduler.submit(Job(execution_id="late", agent="a", not_before=not_before))
                delayed = (await scheduler.stats()).delayed
                assert delayed == 1 or time.time() >= not_before
                await scheduler.submit(Job(execution_id="now", agent="a"))
                await until(lambda: {"now", "late"} <= set(jobs.done))
                assert jobs.began_at["late"] >= not_before

        run(scheduler, body)

    def test_a_job_that_is_submitted_twice_is_done_once(self, scheduler: Scheduler) -> None:
        """While it waits, it stays as it is."""

        async def body() -> None:
            for _ in range(3):
                await scheduler.submit(Job(execution_id="one", agent="a"))
            await scheduler.submit(Job(execution_id="two", agent="a"))
            jobs = Jobs()
            async with at_work(scheduler, jobs):
                await until(lambda: "two" in jobs.done)
            assert jobs.ids == ["one", "two"]
            assert (await scheduler.stats()).queued == 0

        run(scheduler, body)

    def test_a_job_never_runs_beside_itself(self, scheduler: Scheduler) -> None:
        """Submitted while it runs: whether it is delivered once more after that is the scheduler's choice."""

        async def body() -> None:
            jobs = Jobs(takes_s=0.2)
            async with at_work(scheduler, jobs, slots=4):
                await scheduler.submit(Job(execution_id="one", agent="a"))
                await until(lambda: len(jobs.begun) == 1)
                await scheduler.submit(Job(execution_id="one", agent="a"))
                await until(lambda: len(jobs.done) == 1)
            assert jobs.most_at_once == 1

        run(scheduler, body)

    def test_a_job_can_be_submitted_again_after_its_end(self, scheduler: Scheduler) -> None:
        """A run that waited for a person goes on."""

        async def body() -> None:
            jobs = Jobs()
            async with at_work(scheduler, jobs):
                for n in range(1, 4):
                    await scheduler.submit(Job(execution_id="one", agent="a"))
                    await until(lambda n=n: len(jobs.done) >= n)  # type: ignore[misc]
                    await emptied(scheduler)

        run(scheduler, body)

    def test_a_job_that_is_not_done_is_delivered_again(self, scheduler: Scheduler) -> None:
        """After the time that the handler said, and never acknowledged before."""

        async def body() -> None:
            times: list[float] = []

            async def handler(_job: Job) -> Later | None:
                times.append(time.monotonic())
                return Later(after_s=0.2, reason="not yet") if len(times) < 3 else None

            async with at_work(scheduler, handler):
                await scheduler.submit(Job(execution_id="one", agent="a"))
                await until(lambda: len(times) == 3)
                await emptied(scheduler)
            assert times[1] - times[0] >= 0.19
            assert times[2] - times[1] >= 0.19

        run(scheduler, body)

    def test_a_handler_that_fails_loses_nothing(self, scheduler: Scheduler) -> None:
        """Its job comes again, and the worker goes on with others."""

        async def body() -> None:
            tries: list[str] = []

            async def handler(job: Job) -> None:
                tries.append(job.execution_id)
                if tries == ["bad"]:
                    raise ValueError("the handler has a bug")

            async with at_work(scheduler, handler):
                await scheduler.submit(Job(execution_id="bad", agent="a"))
                await scheduler.submit(Job(execution_id="good", agent="a"))
                await until(lambda: "good" in tries and tries.count("bad") == 2)

        run(scheduler, body)

    # Cancellation

    def test_a_queued_job_that_is_cancelled_is_never_begun(self, scheduler: Scheduler) -> None:
        """Nor a delayed one; an unknown one is no error."""

        async def body() -> None:
            await scheduler.cancel("unknown")
            await scheduler.submit(Job(execution_id="queued", agent="a"))
            await scheduler.submit(Job(execution_id="late", agent="a", not_before=time.time() + 0.2))
            await scheduler.cancel("queued")
            await scheduler.cancel("late")
            assert (await scheduler.stats()).queued == 0
            jobs = Jobs()
            async with at_work(scheduler, jobs):
                await asyncio.sleep(0.4)
                await scheduler.submit(Job(execution_id="other", agent="a"))
                await until(lambda: jobs.done == ["other"])
                # What was cancelled can be asked for again.
                await scheduler.submit(Job(execution_id="queued", agent="a"))
                await until(lambda: jobs.done == ["other", "queued"])

        run(scheduler, body)

    def test_a_running_job_that_is_cancelled_ends(self, scheduler: Scheduler) -> None:
        """Its handler is cancelled and it is not delivered again; its neighbour does not notice."""

        async def body() -> None:
            jobs = Jobs(takes_s=1.0)
            async with at_work(scheduler, jobs, slots=2):
                await scheduler.submit(Job(execution_id="one", agent="a"))
                await scheduler.submit(Job(execution_id="two", agent="a"))
                await until(lambda: len(jobs.begun) == 2)
                await scheduler.cancel("one")
                await until(lambda: jobs.cancelled == ["one"])
                await until(lambda: jobs.done == ["two"])
                await emptied(scheduler)
            assert sorted(jobs.ids) == ["one", "two"]

        run(scheduler, body)

    # Stopping

    def test_a_worker_that_is_stopped_ends_what_it_has(self, scheduler: Scheduler) -> None:
        """And takes nothing new; the next worker finds the rest."""

        async def body() -> None:
            for name in ("one", "two", "three"):
                await scheduler.submit(Job(execution_id=name, agent="a"))
            jobs = Jobs(takes_s=0.3)
            async with at_work(scheduler, jobs) as stop:
                await until(lambda: len(jobs.begun) == 1)
                stop.set()
            assert jobs.done == jobs.ids == ["one"]
            async with at_work(scheduler, jobs):
                await until(lambda: jobs.done == ["one", "two", "three"])

        run(scheduler, body)

    def test_a_worker_that_is_cancelled_gives_up_what_it_has(self, scheduler: Scheduler) -> None:
        """The next one gets it, without waiting for the first one to be missed."""

        async def body() -> None:
            jobs = Jobs(takes_s=60)
            worker = asyncio.create_task(scheduler.work(jobs, slots=2, stop=asyncio.Event()))
            await scheduler.submit(Job(execution_id="one", agent="a"))
            await until(lambda: jobs.ids == ["one"])
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker
            assert worker.cancelled()
            assert jobs.cancelled == ["one"]
            jobs.takes_s = 0
            async with at_work(scheduler, jobs):
                await until(lambda: jobs.done == ["one"])

        run(scheduler, body)

    def test_a_closed_scheduler_says_so(self, scheduler: Scheduler) -> None:
        """No job is taken that nobody would do."""

        async def body() -> None:
            await scheduler.close()
            with pytest.raises(StoreError):
                await scheduler.submit(Job(execution_id="one", agent="a"))

        run(scheduler, body)

    # Notices and numbers

    def test_who_waits_is_told(self, scheduler: Scheduler) -> None:
        """All who wait for the run, at once; nobody who waits for another one."""

        async def body() -> None:
            waits = [asyncio.create_task(scheduler.wait("one", 20)) for _ in range(5)]
            other = asyncio.create_task(scheduler.wait("other", 0.7))
            await asyncio.sleep(0.3)
            begun = time.monotonic()
            await scheduler.ended("one")
            assert await asyncio.gather(*waits) == [True] * 5
            assert time.monotonic() - begun < 0.3
            assert await other is False
            # Only what is told from now on counts.
            assert await scheduler.wait("one", 0.1) is False

        run(scheduler, body)

    def test_the_numbers_are_right(self, scheduler: Scheduler) -> None:
        """Queued, delayed and running, and which worker has what."""

        async def body() -> None:
            assert await scheduler.stats() == QueueStats(queued=0, delayed=0, running=0)
            jobs = Jobs(takes_s=0.5)
            for name in ("one", "two"):
                await scheduler.submit(Job(execution_id=name, agent="a"))
            await scheduler.submit(Job(execution_id="late", agent="a", not_before=time.time() + 60))
            async with at_work(scheduler, jobs):
                await until(lambda: len(jobs.begun) == 1)
                stats = await scheduler.stats()
                assert (stats.queued, stats.delayed, stats.running) == (1, 1, 1)
                await until(lambda: len(jobs.done) == 1)
            await scheduler.cancel("late")

        run(scheduler, body)

    # Other processes

    @needs("takeover")
    def test_the_jobs_of_a_worker_that_is_killed_are_done_by_another(
        self, scheduler: Scheduler, open_again: Callable[[], Scheduler] | None, tmp_path: Path
    ) -> None:
        """Killed in the middle of them, without a word."""
        if open_again is None:
            pytest.skip("this queue is in one process only")

        async def body() -> None:
            for name in ("one", "two"):
                await scheduler.submit(Job(execution_id=name, agent="a"))
            with worker_process(open_again, tmp_path) as worker:
                await until(lambda: len(list(tmp_path.iterdir())) == 2)
                os.kill(worker, signal.SIGKILL)
            jobs = Jobs()
            async with at_work(scheduler, jobs, slots=2):
                await until(lambda: sorted(jobs.done) == ["one", "two"])

        run(scheduler, body)

    @needs("processes")
    def test_a_job_is_cancelled_in_another_process(
        self, scheduler: Scheduler, open_again: Callable[[], Scheduler] | None, tmp_path: Path
    ) -> None:
        """Wherever it is at work."""
        if open_again is None:
            pytest.skip("this queue is in one process only")

        async def body() -> None:
            await scheduler.submit(Job(execution_id="one", agent="a"))
            with worker_process(open_again, tmp_path):
                await until((tmp_path / "one").exists)
                await scheduler.cancel("one")
                await until((tmp_path / "one.cancelled").exists)
                await emptied(scheduler)

        run(scheduler, body)
