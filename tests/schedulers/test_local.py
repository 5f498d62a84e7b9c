"""The scheduler inside of one process: order, fairness, limits, cancellation, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from oao_harness import ConfigError, StoreError, UsageError
from oao_harness.schedulers.local import LocalScheduler
from oao_hookspecs import Handler, Job, Later, Scheduler
from pytest_oao.testing import SchedulerConformance

MOST_S = 10.0


class TestLocal(SchedulerConformance):
    """It is lost with its process, and keeps every other promise."""

    @pytest.fixture
    def scheduler(self) -> LocalScheduler:
        return LocalScheduler()


def job(id_: str, **fields: Any) -> Job:
    return Job(execution_id=id_, agent=fields.pop("agent", "support"), **fields)


@contextlib.asynccontextmanager
async def working(scheduler: LocalScheduler, handler: Handler, slots: int = 1) -> AsyncIterator[asyncio.Event]:
    """A worker, stopped at the end, with all that it began."""
    stop = asyncio.Event()
    task = asyncio.create_task(scheduler.work(handler, slots=slots, stop=stop))
    await asyncio.sleep(0)
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(task, MOST_S)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop go on until something is true."""
    async with asyncio.timeout(MOST_S):
        while not true():
            await asyncio.sleep(0.001)


def noting(done: list[str]) -> Handler:
    async def handler(job: Job) -> None:
        done.append(job.execution_id)
        await asyncio.sleep(0)

    return handler


class Gate:
    """A handler whose jobs are at work until they are let go."""

    def __init__(self) -> None:
        self.at_work: list[str] = []
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.most = 0
        self._gates: dict[str, asyncio.Event] = {}

    async def __call__(self, job: Job) -> None:
        id_ = job.execution_id
        self.at_work.append(id_)
        self.begun.append(id_)
        self.most = max(self.most, len(self.at_work))
        try:
            await self._gates.setdefault(id_, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.cancelled.append(id_)
            raise
        finally:
            self.at_work.remove(id_)

    def let_go(self, *ids: str) -> None:
        for id_ in ids:
            self._gates.setdefault(id_, asyncio.Event()).set()


async def test_it_is_a_scheduler() -> None:
    """It has every method of the contract, and closing it twice is allowed."""
    scheduler = LocalScheduler()
    assert isinstance(scheduler, Scheduler)
    await scheduler.submit(job("a"))
    await scheduler.close()
    await scheduler.close()
    assert (await scheduler.stats()).queued == 0
    with pytest.raises(StoreError, match="the local scheduler is closed; open another one"):
        await scheduler.submit(job("a"))
    with pytest.raises(StoreError, match="closed"):
        await scheduler.work(_nothing, slots=1, stop=asyncio.Event())


async def test_first_in_first_out() -> None:
    """Within a priority the order of submitting is the order of work."""
    scheduler, done = LocalScheduler(), list[str]()
    names = [f"j{n}" for n in range(200)]
    for name in names:
        await scheduler.submit(job(name))
    async with working(scheduler, noting(done)):
        await until(lambda: len(done) == 200)
    assert done == names


async def test_priorities() -> None:
    """A higher one always goes first, also where it comes later."""
    scheduler, gate = LocalScheduler(), Gate()
    async with working(scheduler, gate):
        await scheduler.submit(job("first", priority="low"))
        await until(lambda: gate.at_work == ["first"])
        for name, priority in (("l", "low"), ("n1", "normal"), ("h", "high"), ("n2", "normal")):
            await scheduler.submit(job(name, priority=priority))
        gate.let_go("first", "l", "n1", "h", "n2")
    await asyncio.sleep(0)
    assert gate.begun[:1] == ["first"]
    done: list[str] = []
    async with working(scheduler, noting(done)):
        await until(lambda: len(done) + len(gate.begun) == 5)
    assert [*gate.begun, *done] == ["first", "h", "n1", "n2", "l"]


async def test_tenants_take_turns() -> None:
    """Who comes with one job does not wait for the hundred of somebody else."""
    scheduler, done = LocalScheduler(), list[str]()
    for n in range(100):
        await scheduler.submit(job(f"a{n}", tenant="a"))
    for n in range(3):
        await scheduler.submit(job(f"b{n}", tenant="b"))
    await scheduler.submit(job("c0", tenant="c"))
    async with working(scheduler, noting(done)):
        await until(lambda: len(done) == 104)
    assert done[:8] == ["a0", "b0", "c0", "a1", "b1", "a2", "b2", "a3"]
    assert done[8:] == [f"a{n}" for n in range(4, 100)]


async def test_slots_are_the_bound() -> None:
    """As many at once as there are slots, over all workers that share the queue, and never more."""
    scheduler, gate = LocalScheduler(), Gate()
    async with working(scheduler, gate, 2), working(scheduler, gate, 3):
        for n in range(20):
            await scheduler.submit(job(f"j{n}"))
        await until(lambda: len(gate.at_work) == 5)
        stats = await scheduler.stats()
        assert (stats.queued, stats.running) == (15, 5)
        assert sorted(len(one.running) for one in stats.workers) == [2, 3]
        assert len({one.name for one in stats.workers}) == 2
        gate.let_go(*(f"j{n}" for n in range(20)))
        await until(lambda: len(gate.begun) == 20)
    assert gate.most == 5
    assert gate.begun == [f"j{n}" for n in range(20)]
    assert (await scheduler.stats()).workers == ()


async def test_the_same_job_twice() -> None:
    """One that is queued, delayed or running already stays as it is; one that is done may come again."""
    scheduler, gate = LocalScheduler(), Gate()
    await scheduler.submit(job("late", not_before=time.time() + 60))
    await scheduler.submit(job("late"))
    async with working(scheduler, gate, 5):
        await scheduler.submit(job("a"))
        await scheduler.submit(job("a"))
        await until(lambda: gate.at_work == ["a"])
        await scheduler.submit(job("a"))
        gate.let_go("a")
        await until(lambda: not gate.at_work)
        stats = await scheduler.stats()
        assert (gate.begun, stats.queued, stats.delayed, stats.running) == (["a"], 0, 1, 0)
        await scheduler.submit(job("a"))
        await until(lambda: gate.begun == ["a", "a"])


async def test_delays() -> None:
    """A job begins when its time has come, not before, whatever comes meanwhile."""
    scheduler, done, at = LocalScheduler(), list[str](), dict[str, float]()

    async def handler(job: Job) -> None:
        at[job.execution_id] = time.time()
        done.append(job.execution_id)

    now = time.time()
    async with working(scheduler, handler):
        await scheduler.submit(job("c", not_before=now + 0.3))
        await scheduler.submit(job("b", not_before=now + 0.15))
        await scheduler.submit(job("gone", not_before=now + 0.1))
        await scheduler.submit(job("a"))
        await until(lambda: done == ["a"])
        assert (await scheduler.stats()).delayed == 3
        await scheduler.cancel("gone")
        await until(lambda: len(done) == 3)
    assert done == ["a", "b", "c"]
    assert at["b"] >= now + 0.15
    assert at["c"] >= now + 0.3
    assert (await scheduler.stats()).delayed == 0


async def test_handed_back() -> None:
    """What says `Later` comes again, behind the others; it never counts as done."""
    scheduler, seen = LocalScheduler(), list[str]()

    async def handler(job: Job) -> Later | None:
        seen.append(job.execution_id)
        count = seen.count(job.execution_id)
        if job.execution_id == "a" and count < 3:
            return Later(after_s=0.05 if count == 2 else 0.0, reason="not now")
        return None

    await scheduler.submit(job("a"))
    await scheduler.submit(job("b"))
    async with working(scheduler, handler):
        await until(lambda: len(seen) == 3)
        stats = await scheduler.stats()
        assert (stats.queued, stats.delayed, stats.running) == (0, 1, 0)
        await until(lambda: len(seen) == 4)
    assert seen == ["a", "b", "a", "a"]


async def test_a_handler_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """It must not, so it is said; the job is not lost, and the worker goes on."""
    scheduler, seen = LocalScheduler(), list[str]()

    async def handler(job: Job) -> None:
        seen.append(job.execution_id)
        if seen.count("a") == 1 and job.execution_id == "a":
            raise ValueError("a bug")

    await scheduler.submit(job("a"))
    await scheduler.submit(job("b"))
    with caplog.at_level(logging.ERROR):
        async with working(scheduler, handler):
            await until(lambda: seen == ["a", "b", "a"])
    assert "the handler of job a raised; it is delivered again" in caplog.text


async def test_cancelled_jobs() -> None:
    """One that waits is forgotten, one that runs is cancelled, one that nobody knows is none."""
    scheduler, gate = LocalScheduler(), Gate()
    async with working(scheduler, gate):
        for name in ("a", "b", "c"):
            await scheduler.submit(job(name))
        await until(lambda: gate.at_work == ["a"])
        await scheduler.cancel("b")
        await scheduler.cancel("nobody")
        await scheduler.cancel("a")
        await until(lambda: gate.at_work == ["c"])
        assert gate.cancelled == ["a"]
        gate.let_go("c")
    stats = await scheduler.stats()
    assert (gate.begun, stats.queued, stats.running) == (["a", "c"], 0, 0)


async def test_cancelled_before_its_first_step() -> None:
    """A job that was handed out a moment ago frees its slot, although its handler never ran."""
    scheduler, gate = LocalScheduler(), Gate()
    async with working(scheduler, gate):
        await scheduler.submit(job("a"))
        await scheduler.cancel("a")
        await scheduler.submit(job("b"))
        await until(lambda: gate.at_work == ["b"])
        gate.let_go("b")
    assert gate.begun == ["b"]


async def test_submitted_again_while_it_is_cancelled() -> None:
    """A handler may take its time to end; what is submitted meanwhile is not lost."""
    scheduler, begun, ending = LocalScheduler(), list[str](), asyncio.Event()

    async def handler(job: Job) -> None:
        begun.append(job.execution_id)
        if len(begun) == 1:
            try:
                await asyncio.sleep(MOST_S)
            finally:
                await ending.wait()

    async with working(scheduler, handler):
        await scheduler.submit(job("a"))
        await until(lambda: begun == ["a"])
        await scheduler.cancel("a")
        await scheduler.submit(job("a"))
        await asyncio.sleep(0.01)
        assert begun == ["a"]
        ending.set()
        await until(lambda: begun == ["a", "a"])


async def test_a_cancelled_job_never_comes_back() -> None:
    """Not even where its handler hands it back, or fails, while it ends."""
    for end in ("later", "error"):
        scheduler, begun = LocalScheduler(), list[str]()

        async def handler(job: Job, end: str = end, begun: list[str] = begun) -> Later | None:
            begun.append(job.execution_id)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(MOST_S)
            if end == "error":
                raise ValueError
            return Later(after_s=0, reason="again")

        async with working(scheduler, handler):
            await scheduler.submit(job("a"))
            await until(lambda begun=begun: begun == ["a"])
            await scheduler.cancel("a")
        stats = await scheduler.stats()
        assert (stats.queued, stats.delayed, stats.running, begun) == (0, 0, 0, ["a"])


async def test_drain() -> None:
    """From `stop` on nothing is taken, not even in the same moment; what is at work ends, the rest waits."""
    scheduler, gate = LocalScheduler(), Gate()
    stop = asyncio.Event()
    task = asyncio.create_task(scheduler.work(gate, slots=2, stop=stop))
    await asyncio.sleep(0)
    await scheduler.submit(job("a"))
    await until(lambda: gate.at_work == ["a"])
    stop.set()
    await scheduler.submit(job("b"))
    await asyncio.sleep(0.02)
    assert not task.done()
    gate.let_go("a")
    await asyncio.wait_for(task, MOST_S)
    assert gate.begun == ["a"]
    assert (await scheduler.stats()).queued == 1
    stopped = asyncio.Event()
    stopped.set()
    await asyncio.wait_for(scheduler.work(gate, slots=1, stop=stopped), MOST_S)
    assert gate.begun == ["a"]


async def test_a_worker_that_gives_up() -> None:
    """What it had is cancelled, and the next worker gets it, in the order it came."""
    scheduler, gate = LocalScheduler(), Gate()
    for name in ("a", "b", "c"):
        await scheduler.submit(job(name))
    task = asyncio.create_task(scheduler.work(gate, slots=2, stop=asyncio.Event()))
    await until(lambda: gate.at_work == ["a", "b"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(gate.cancelled) == ["a", "b"]
    stats = await scheduler.stats()
    assert (stats.queued, stats.running, list(stats.workers)) == (3, 0, [])
    done: list[str] = []
    async with working(scheduler, noting(done)):
        await until(lambda: len(done) == 3)
    assert done == ["a", "b", "c"]


async def test_what_a_worker_gives_up_goes_to_another_one_at_once() -> None:
    """Nobody needs to submit anything for that."""
    scheduler, gate, done = LocalScheduler(), Gate(), list[str]()
    task = asyncio.create_task(scheduler.work(gate, slots=1, stop=asyncio.Event()))
    await scheduler.submit(job("a"))
    await until(lambda: gate.at_work == ["a"])
    async with working(scheduler, noting(done)):
        task.cancel()
        await until(lambda: done == ["a"])


async def test_the_limit_of_a_tenant() -> None:
    """Others go past it; nobody's jobs have no limit, and parts of a run are the run's."""
    scheduler, gate = LocalScheduler(tenant_limit=2), Gate()
    async with working(scheduler, gate, 10):
        for n in range(4):
            await scheduler.submit(job(f"a{n}", tenant="a"))
            await scheduler.submit(job(f"x{n}"))
        await scheduler.submit(job("b0", tenant="b"))
        await scheduler.submit(job("part", tenant="a", nested=True))
        await until(lambda: len(gate.at_work) == 8)
        await asyncio.sleep(0.01)
        assert sorted(gate.at_work) == ["a0", "a1", "b0", "part", "x0", "x1", "x2", "x3"]
        gate.let_go("a1")
        await until(lambda: "a2" in gate.at_work)
        await scheduler.cancel("a0")
        await until(lambda: "a3" in gate.at_work)
        gate.let_go("a2", "a3", "b0", "part", "x0", "x1", "x2", "x3")


async def test_the_limit_of_an_agent() -> None:
    """Jobs behind it that are other agents' do not wait, even of one tenant; its own stay in order."""
    scheduler, gate = LocalScheduler(agent_limits={"slow": 1}), Gate()
    async with working(scheduler, gate, 5):
        for n in range(3):
            await scheduler.submit(job(f"s{n}", agent="slow"))
        await scheduler.submit(job("q", agent="quick"))
        await until(lambda: len(gate.at_work) == 2)
        await asyncio.sleep(0.01)
        assert sorted(gate.at_work) == ["q", "s0"]
        gate.let_go("s0", "s1", "s2", "q")
        await until(lambda: len(gate.begun) == 4)
    assert [name for name in gate.begun if name != "q"] == ["s0", "s1", "s2"]


async def test_parts_have_slots_of_their_own() -> None:
    """Runs that have all slots still get their parts done, as many at once as there are slots."""
    scheduler, most, now = LocalScheduler(), [0], [0]

    async def handler(job: Job) -> None:
        if not job.nested:
            parts = [f"{job.execution_id}.{n}" for n in range(3)]
            told = [asyncio.create_task(scheduler.wait(part, MOST_S)) for part in parts]
            await asyncio.sleep(0)
            for part in parts:
                await scheduler.submit(Job(execution_id=part, agent="part", nested=True))
            assert all(await asyncio.gather(*told))
            await scheduler.ended(job.execution_id)
            return
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.005)
        now[0] -= 1
        await scheduler.ended(job.execution_id)

    async with working(scheduler, handler, 2):
        ends = [asyncio.create_task(scheduler.wait(f"r{n}", MOST_S)) for n in range(6)]
        await asyncio.sleep(0)
        for n in range(6):
            await scheduler.submit(job(f"r{n}"))
        assert all(await asyncio.gather(*ends))
    assert most == [2]


@pytest.mark.parametrize("limits", [{}, {"support": 1}])
async def test_parts_of_parts_never_wait_for_ever(limits: dict[str, int]) -> None:
    """One slot, and a part that waits for its part, five deep: who waits holds neither slot nor its agent's limit."""
    scheduler, deepest = LocalScheduler(agent_limits=limits), [0]

    async def handler(job: Job) -> None:
        depth = job.execution_id.count(".")
        deepest[0] = max(deepest[0], depth)
        if depth < 5:
            part = f"{job.execution_id}.p"
            told = asyncio.create_task(scheduler.wait(part, MOST_S))
            await asyncio.sleep(0)
            await scheduler.submit(Job(execution_id=part, agent="support", nested=True))
            assert await told
        await scheduler.ended(job.execution_id)

    async with working(scheduler, handler, 1):
        told = asyncio.create_task(scheduler.wait("r", MOST_S))
        await asyncio.sleep(0)
        await scheduler.submit(job("r"))
        assert await told
    assert deepest == [5]
    stats = await scheduler.stats()
    assert (stats.running, stats.queued) == (0, 0)


async def test_who_waited_counts_again() -> None:
    """A job that waited for another one in vain is at work as before: its agent's limit holds."""
    scheduler, gate = LocalScheduler(agent_limits={"support": 1}), Gate()
    ready = asyncio.Event()

    async def handler(job: Job) -> None:
        if job.execution_id == "waits":
            assert not await scheduler.wait("never", 0.01)
            ready.set()
        await gate(job)

    async with working(scheduler, handler, 5):
        await scheduler.submit(job("waits"))
        await ready.wait()
        await scheduler.submit(job("next"))
        await asyncio.sleep(0.02)
        assert gate.at_work == ["waits"]
        gate.let_go("waits", "next")
        await until(lambda: "next" in gate.begun)


async def test_ended_is_told_to_everybody_who_waits() -> None:
    """Whoever waits hears of it at once, who comes later does not; nothing is kept for either."""
    scheduler = LocalScheduler()
    waiting = [asyncio.create_task(scheduler.wait("a", MOST_S)) for _ in range(3)]
    other = asyncio.create_task(scheduler.wait("b", 0.05))
    left = asyncio.create_task(scheduler.wait("a", MOST_S))
    await asyncio.sleep(0)
    left.cancel()
    begun = time.monotonic()
    await scheduler.ended("a")
    assert await asyncio.gather(*waiting) == [True, True, True]
    assert time.monotonic() - begun < 1
    assert await other is False
    assert await scheduler.wait("a", 0.0) is False
    assert scheduler._waiting == {}


async def test_a_job_does_not_run_inside_of_who_submits() -> None:
    """Its context is its worker's: a run that submits another one is not the run around it."""
    inside: contextvars.ContextVar[str] = contextvars.ContextVar("inside", default="nobody")
    scheduler, seen = LocalScheduler(), list[str]()

    async def handler(job: Job) -> None:
        seen.append(inside.get())

    async with working(scheduler, handler, 2):
        inside.set("who submits")
        await scheduler.submit(job("a"))
        await until(lambda: len(seen) == 1)
    assert seen == ["nobody"]


async def test_many_jobs_of_many_tenants_lose_nothing() -> None:
    """Each job is done once, whatever is cancelled, handed back and given up in between."""
    scheduler, done = LocalScheduler(tenant_limit=3, agent_limits={"a1": 2}), Counter[str]()
    handed: set[str] = set()

    async def handler(job: Job) -> Later | None:
        await asyncio.sleep(0)
        if job.execution_id.endswith("7") and job.execution_id not in handed:
            handed.add(job.execution_id)
            return Later(after_s=0.001, reason="once")
        done[job.execution_id] += 1
        return None

    workers = [asyncio.create_task(scheduler.work(handler, slots=4, stop=asyncio.Event())) for _ in range(3)]
    await asyncio.sleep(0)
    for n in range(2000):
        priority = ("high", "normal", "low")[n % 3]
        await scheduler.submit(job(f"j{n}", tenant=f"t{n % 11}", agent=f"a{n % 5}", priority=priority))
        if n % 500 == 499:
            workers.pop(0).cancel()
            workers.append(asyncio.create_task(scheduler.work(handler, slots=4, stop=asyncio.Event())))
            await asyncio.sleep(0.001)
    await until(lambda: len(done) == 2000)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert set(done.values()) == {1}
    stats = await scheduler.stats()
    assert (stats.queued, stats.delayed, stats.running) == (0, 0, 0)


async def test_what_is_refused() -> None:
    """Limits and slots are whole numbers from 1; no worker may have none."""
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(ConfigError, match=f"tenant_limit={wrong}: give a whole number >= 1, or None"):
            LocalScheduler(tenant_limit=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"agent_limits\['slow'\]=0: give a whole number"):
        LocalScheduler(agent_limits={"slow": 0})
    for wrong in (0, True):
        with pytest.raises(UsageError, match=f"slots={wrong}: give a whole number, at least 1"):
            await LocalScheduler().work(_nothing, slots=wrong, stop=asyncio.Event())


async def _nothing(job: Job) -> None:
    pass
