"""What a Redis scheduler must bear: hostile entries, zombies, a queue that forgets, limits, a server that goes away."""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import docket
import pytest
import redis

from oao_harness.errors import ConfigError, StoreError
from oao_harness.plugins.manager import make_manager
from oao_harness.schedulers.redis import RedisScheduler
from oao_harness.schedulers.redis_entries import TASK, checked, id_of, key_of
from oao_harness.schedulers.redis_urls import check
from oao_hookspecs.schedulers import Job, Later, SchedulerSettings
from pytest_oao.testing import RedisServer
from pytest_oao.testing.scheduler_jobs import Jobs, at_work, emptied, run, until, worker_process

SHORT_S = 1.0


@pytest.fixture
def prefix(url: str) -> str:
    """What the keys of the test's queue begin with."""
    return url.partition("prefix=")[2]


@pytest.fixture
def scheduler(url: str) -> RedisScheduler:
    """A scheduler whose workers are missed soon."""
    return RedisScheduler(url, redelivery_s=SHORT_S)


@pytest.fixture
def server(redis_server: RedisServer) -> Any:
    """The server itself, as somebody else who may write to it."""
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def _entry(**changed: bytes) -> dict[bytes, bytes]:
    kwargs = {"execution_id": "job:x", "agent": "a", "tenant": "", "nested": False, "priority": "normal"}
    entry = {
        b"key": b"job:x",
        b"when": b"2026-01-01T00:00:00+00:00",
        b"function": TASK.encode(),
        b"args": cloudpickle.dumps(()),
        b"kwargs": cloudpickle.dumps(kwargs),
        b"attempt": b"1",
        b"generation": b"0",
    }
    return entry | {name.encode(): value for name, value in changed.items()}


def _hostile(marker: Path) -> dict[str, dict[bytes, bytes]]:
    memo = io.BytesIO()
    memo.write(b"\x80\x02)r\xff\xff\xff\x7f.")  # PUT with an index that would take 30 GB
    return {
        "code in args": _entry(args=pickle.dumps((_Evil(marker),))),
        "code in kwargs": _entry(kwargs=pickle.dumps({"execution_id": _Evil(marker)})),
        "no pickle": _entry(args=b"\x00not a pickle"),
        "cut short": _entry(kwargs=cloudpickle.dumps({"execution_id": "job:x"})[:-3]),
        "a large memo": _entry(args=memo.getvalue()),
        "large": _entry(kwargs=cloudpickle.dumps({"execution_id": "x" * 200_000})),
        "another shape": _entry(kwargs=cloudpickle.dumps({"execution_id": "job:x"})),
        "arguments that are none": _entry(kwargs=cloudpickle.dumps(7)),
        "an unknown task": _entry(function=b"trace"),
        "another job's key": _entry(key=b"job:y"),
        "a key that is no text": _entry(key=b"\xff\xfe"),
        "a time that is none": _entry(when=b"soon"),
        "an attempt that is none": _entry(attempt=b"x"),
        "a generation that is none": _entry(generation=b"x"),
        "a foreign wake": _entry(
            function=b"_safeguard_wake",
            kwargs=cloudpickle.dumps({"waiter_stream": "elsewhere:waiters", "max_concurrent": 1}),
        ),
        "no fields of ours": {b"hello": b"world"},
    }


class TestHostileEntries:
    def test_what_a_worker_writes_is_accepted(self) -> None:
        """Docket's way to write a job is what the check knows; a new version of it shows here."""
        assert docket.__version__.startswith("0.27.")
        assert checked(b"1-0", _entry() | {b"traceparent": b"00-1"}, "p").fields == _entry()

    @pytest.mark.parametrize("what", list(_hostile(Path("x"))))
    def test_each_is_refused_and_runs_nothing(self, what: str, tmp_path: Path) -> None:
        """Before Docket could read it."""
        marker = tmp_path / "ran"
        with pytest.raises(ValueError):
            checked(b"1-0", _hostile(marker)[what], "p")
        assert not marker.exists()

    def test_no_worker_dies_of_them(
        self,
        scheduler: RedisScheduler,
        server: redis.Redis,
        prefix: str,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """New, delayed and redelivered ones are dropped and counted; the jobs around them are done."""
        marker = tmp_path / "ran"
        bad = list(_hostile(marker).values())

        async def body() -> None:
            await scheduler.submit(Job(execution_id="before", agent="a"))
            for entry in bad:
                server.xadd(f"{prefix}:stream:normal", entry)  # type: ignore[arg-type]
            server.xadd(f"{prefix}:strikes", {b"direction": b"strike", b"value": pickle.dumps(_Evil(marker))})
            # As if a worker had died of one.
            server.xgroup_create(f"{prefix}:stream:high", "docket-workers", id="0", mkstream=True)
            server.xadd(f"{prefix}:stream:high", bad[0])  # type: ignore[arg-type]
            server.xreadgroup("docket-workers", "dead", {f"{prefix}:stream:high": ">"})
            # As if it had been delayed.
            server.hset(f"{prefix}:evil", mapping=bad[1])  # type: ignore[arg-type]
            server.zadd(f"{prefix}:queue:low", {"evil": 1})
            await scheduler.submit(Job(execution_id="after", agent="a"))
            jobs = Jobs()
            async with at_work(scheduler, jobs, slots=2):
                await until(lambda: sorted(jobs.done) == ["after", "before"])
                await until(lambda: server.hget(f"{prefix}:counts", "dropped") == str(len(bad) + 2).encode())
                await scheduler.submit(Job(execution_id="last", agent="a"))
                await until(lambda: "last" in jobs.done)
            assert jobs.begun[0].execution_id == "before"

        run(scheduler, body)
        assert not marker.exists()
        assert "is no job and is dropped" in caplog.text
        assert not server.xlen(f"{prefix}:stream:normal")

    def test_an_entry_for_a_job_that_nobody_submitted_is_not_delivered(
        self, scheduler: RedisScheduler, server: redis.Redis, prefix: str
    ) -> None:
        """The set of open jobs is the truth."""

        async def body() -> None:
            server.xadd(f"{prefix}:stream:normal", _entry())  # type: ignore[arg-type]
            jobs = Jobs()
            async with at_work(scheduler, jobs):
                await scheduler.submit(Job(execution_id="real", agent="a"))
                await until(lambda: jobs.ids == ["real"])
                await emptied(scheduler)
            assert jobs.ids == ["real"]

        run(scheduler, body)

    @pytest.mark.parametrize("odd", ["a b", "{x}:*", "half \ud83d", "nul \0", "a/b%20", ""])
    def test_a_key_is_plain_and_gives_the_id_back(self, odd: str) -> None:
        """Whatever the id looks like."""
        assert key_of(odd).isascii()
        assert id_of(key_of(odd)) == odd


class TestGuards:
    def test_a_zombies_return_does_not_lose_the_job(
        self, url: str, server: redis.Redis, prefix: str, tmp_path: Path
    ) -> None:
        """Frozen, replaced, awake again, returned; then its successor dies: the job is still done by a third."""
        scheduler = RedisScheduler(url, redelivery_s=SHORT_S)

        async def body() -> None:
            release = asyncio.Event()
            calls: list[str] = []

            async def zombie(_job: Job) -> None:
                calls.append("zombie")
                await release.wait()

            async with at_work(scheduler, zombie):
                await scheduler.submit(Job(execution_id="one", agent="a"))
                await until(lambda: calls == ["zombie"])
                # As the server sees it after a freeze: another delivery has begun.
                server.hset(f"{prefix}:running", "job:one", '["successor", "token"]')
                release.set()
            assert server.hexists(f"{prefix}:open", "job:one")
            jobs = Jobs()
            async with at_work(scheduler, jobs):
                await until(lambda: jobs.done == ["one"])

        run(scheduler, body)

    def test_a_frozen_worker_loses_its_job_and_wakes_to_no_harm(self, url: str, tmp_path: Path) -> None:
        """SIGSTOP, another one does the job, SIGCONT: nothing is lost, and nothing stands in the queue."""
        open_again = functools.partial(RedisScheduler, url, redelivery_s=SHORT_S)
        scheduler = open_again()

        async def body() -> None:
            await scheduler.submit(Job(execution_id="one", agent="a"))
            with worker_process(open_again, tmp_path) as worker:
                await until((tmp_path / "one").exists)
                os.kill(worker, signal.SIGSTOP)
                jobs = Jobs()
                async with at_work(scheduler, jobs):
                    await until(lambda: jobs.done == ["one"])
                    os.kill(worker, signal.SIGCONT)
                    await until((tmp_path / "one.cancelled").exists)
                    await emptied(scheduler)

        run(scheduler, body)

    @pytest.mark.parametrize("keys", ["stream", "stream and record", "record", "all"])
    def test_what_the_queue_forgets_is_added_again(
        self, scheduler: RedisScheduler, server: redis.Redis, prefix: str, keys: str
    ) -> None:
        """Whatever of it is gone; what was done is not added again."""

        async def body() -> None:
            await scheduler.submit(Job(execution_id="one", agent="a"))
            if keys in {"stream", "stream and record", "all"}:
                server.delete(f"{prefix}:stream:normal")
            if keys in {"stream and record", "record", "all"}:
                server.delete(f"{prefix}:runs:job:one")
            jobs = Jobs()
            async with at_work(scheduler, jobs):
                await until(lambda: jobs.done == ["one"])
                await emptied(scheduler)
            assert jobs.done == ["one"]

        run(scheduler, body)

    def test_a_submit_while_the_job_ends_is_not_lost(self, scheduler: RedisScheduler) -> None:
        """A person answers while the worker is putting the run aside: it is delivered once more."""

        async def body() -> None:
            calls: list[str] = []

            async def handler(job: Job) -> None:
                calls.append(job.execution_id)
                if len(calls) == 1:
                    await scheduler.submit(job)

            async with at_work(scheduler, handler):
                await scheduler.submit(Job(execution_id="one", agent="a"))
                await until(lambda: calls == ["one", "one"])
                await emptied(scheduler)

        run(scheduler, body)

    def test_a_cancelled_job_of_a_dead_worker_is_not_begun_again(
        self, url: str, server: redis.Redis, prefix: str, tmp_path: Path
    ) -> None:
        """The cancellation outlives the worker that should have heard of it."""
        open_again = functools.partial(RedisScheduler, url, redelivery_s=SHORT_S)
        scheduler = open_again()

        async def body() -> None:
            await scheduler.submit(Job(execution_id="one", agent="a"))
            with worker_process(open_again, tmp_path) as worker:
                await until((tmp_path / "one").exists)
                os.kill(worker, signal.SIGKILL)
            await scheduler.cancel("one")
            jobs = Jobs()
            async with at_work(scheduler, jobs):
                await until(lambda: server.xlen(f"{prefix}:stream:normal") == 0)
                await emptied(scheduler)
            assert not jobs.begun

        run(scheduler, body)

    def test_a_cancellation_that_was_not_heard_is_found(
        self, scheduler: RedisScheduler, server: redis.Redis, prefix: str
    ) -> None:
        """The message can get lost; that the job is not open any more cannot."""

        async def body() -> None:
            jobs = Jobs(takes_s=60)
            async with at_work(scheduler, jobs):
                await scheduler.submit(Job(execution_id="one", agent="a"))
                await until(lambda: jobs.ids == ["one"])
                server.hdel(f"{prefix}:open", "job:one")
                await until(lambda: jobs.cancelled == ["one"])
                await emptied(scheduler)

        run(scheduler, body)

    def test_a_long_job_stays_its_workers_while_that_stops(self, scheduler: RedisScheduler) -> None:
        """Docket stops to renew as soon as a worker begins to end; this one does not."""

        async def body() -> None:
            jobs = Jobs(takes_s=2.5 * SHORT_S)
            other = Jobs()
            async with at_work(scheduler, jobs) as stop:
                await scheduler.submit(Job(execution_id="one", agent="a"))
                await until(lambda: jobs.ids == ["one"])
                stop.set()
                async with at_work(scheduler, other):
                    await until(lambda: jobs.done == ["one"])
            assert not other.begun

        run(scheduler, body)

    def test_low_priority_does_not_starve(self, scheduler: RedisScheduler) -> None:
        """While high ones never end to wait."""

        async def body() -> None:
            for n in range(60):
                await scheduler.submit(Job(execution_id=f"h{n}", agent="a", priority="high"))
            await scheduler.submit(Job(execution_id="low", agent="a", priority="low"))
            jobs = Jobs()
            async with at_work(scheduler, jobs):
                await until(lambda: "low" in jobs.ids)
            assert 4 <= jobs.ids.index("low") <= 40

        run(scheduler, body)


class TestTogether:
    """What no limit holds is begun and ended in groups, without Docket's worker."""

    def test_many_jobs_are_few_questions(self, scheduler: RedisScheduler, server: redis.Redis, prefix: str) -> None:
        """Less than one script for two jobs; nothing of them stands in the queue then, and each can be added again."""

        async def body() -> None:
            for n in range(100):
                await scheduler.submit(Job(execution_id=f"r{n}", agent="a"))
            server.config_resetstat()
            jobs, began = Jobs(), time.monotonic()
            async with at_work(scheduler, jobs, slots=50):
                await until(lambda: len(jobs.done) == 100)
                await emptied(scheduler)
                commands: Any = server.info("commandstats")
                # Each of four lanes looks 20 times a second for jobs whose time has come.
                looks = 4 * 20 * (time.monotonic() - began)
                assert commands["cmdstat_evalsha"]["calls"] - looks < 50
                assert server.xlen(f"{prefix}:stream:normal") == 0
                assert server.hget(f"{prefix}:runs:job:r1", "state") == b"completed"
                assert 0 < server.ttl(f"{prefix}:runs:job:r1") <= 300
                assert not server.hgetall(f"{prefix}:running")
                await scheduler.submit(Job(execution_id="r1", agent="a"))
                await until(lambda: jobs.done.count("r1") == 2)

        run(scheduler, body)

    def test_each_of_a_group_ends_on_its_own(self, scheduler: RedisScheduler, server: redis.Redis, prefix: str) -> None:
        """Of jobs that end at once one raises, one is put off, one is cancelled, one is another worker's by now."""

        async def body() -> None:
            release, calls = asyncio.Event(), list[str]()

            async def handler(job: Job) -> Later | None:
                calls.append(job.execution_id)
                if calls.count(job.execution_id) > 1:
                    return None
                await release.wait()
                if job.execution_id == "raises":
                    raise ValueError("not today")
                return Later(after_s=0.01, reason="later") if job.execution_id == "later" else None

            names = ["done", "raises", "later", "cancelled", "taken"]
            async with at_work(scheduler, handler, slots=10):
                for name in names:
                    await scheduler.submit(Job(execution_id=name, agent="a"))
                await until(lambda: len(calls) == 5)
                server.hset(f"{prefix}:running", "job:taken", '["successor", "token"]')
                server.hdel(f"{prefix}:open", "job:cancelled")
                release.set()
                await until(lambda: all(calls.count(name) == 2 for name in ("raises", "later", "taken")))
                await emptied(scheduler)
            assert (calls.count("done"), calls.count("cancelled")) == (1, 1)

        run(scheduler, body)

    def test_who_waits_is_told_with_the_end(self, scheduler: RedisScheduler) -> None:
        """By the same step that takes the job out."""

        async def body() -> None:
            async def handler(job: Job) -> None:
                await asyncio.sleep(0.1)
                await scheduler.ended(job.execution_id)

            waiting = asyncio.create_task(scheduler.wait("one", 5))
            await asyncio.sleep(0.2)
            async with at_work(scheduler, handler):
                await scheduler.submit(Job(execution_id="one", agent="a"))
                assert await waiting

        run(scheduler, body)


class TestLimits:
    def test_a_tenant_has_no_more_than_its_share(self, url: str) -> None:
        """Over all priorities and workers; others are not held up, and all is done."""
        scheduler = RedisScheduler(url, redelivery_s=SHORT_S, tenant_limit=2)

        async def body() -> None:
            running: dict[str, int] = {}
            most: dict[str, int] = {}
            done: list[str] = []
            full = asyncio.Event()

            async def handler(job: Job) -> None:
                running[job.tenant] = running.get(job.tenant, 0) + 1
                most[job.tenant] = max(most.get(job.tenant, 0), running[job.tenant])
                if running.get("t 1", 0) >= 2 and running.get("", 0) > 2:
                    full.set()
                # However slow the machine is: nobody ends before all that may begin have begun.
                await full.wait()
                await asyncio.sleep(0.05)
                running[job.tenant] -= 1
                done.append(job.execution_id)

            for n in range(12):
                await scheduler.submit(
                    Job(execution_id=f"r{n}", agent="a", tenant="t 1", priority=("high", "normal", "low")[n % 3])  # type: ignore[arg-type]
                )
            for n in range(4):
                await scheduler.submit(Job(execution_id=f"free{n}", agent="a"))
            async with at_work(scheduler, handler, slots=4), at_work(scheduler, handler, slots=4):
                await until(lambda: len(done) == 16)
                await emptied(scheduler)
            assert most["t 1"] == 2
            assert most[""] > 2

        run(scheduler, body)

    def test_an_agent_has_a_limit_of_its_own_and_parts_do_not_count(self, url: str) -> None:
        """A part must not wait for the run that waits for it; who waits, waits in order."""
        scheduler = RedisScheduler(url, redelivery_s=SHORT_S, tenant_limit=3, agent_limits={"slow": 1})

        async def body() -> None:
            jobs = Jobs(takes_s=0.05)
            ids = [f"r{n}" for n in range(5)]
            async with at_work(scheduler, jobs, slots=5):
                for execution_id in ids:
                    await scheduler.submit(Job(execution_id=execution_id, agent="slow", tenant="t"))
                await until(lambda: len(jobs.done) == 5)
                assert jobs.most_at_once == 1
                for n in range(3):
                    await scheduler.submit(Job(execution_id=f"part{n}", agent="slow", tenant="t", nested=True))
                await until(lambda: len(jobs.done) == 8)
                await emptied(scheduler)
            assert jobs.most_at_once > 1

        run(scheduler, body)

    @pytest.mark.parametrize("wrong", [{"tenant_limit": 0}, {"agent_limits": {"a": -1}}, {"redelivery_s": 0.0}])
    def test_a_limit_that_lets_nobody_in_is_refused(self, url: str, wrong: dict[str, Any]) -> None:
        """At once, with what to give."""
        with pytest.raises(ConfigError, match="give"):
            RedisScheduler(url, **wrong)


class TestServerTrouble:
    def test_a_server_that_is_restarted_has_lost_nothing(self) -> None:
        """Killed for a second while jobs wait and one runs: all are done, and who waits is told."""
        with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
            scheduler = RedisScheduler(server.url, redelivery_s=SHORT_S)

            async def body() -> None:
                jobs = Jobs(takes_s=0.5)
                async with at_work(scheduler, jobs):
                    for n in range(4):
                        await scheduler.submit(Job(execution_id=f"r{n}", agent="a"))
                    waits = asyncio.create_task(scheduler.wait("r0", 20))
                    await until(lambda: len(jobs.begun) == 1)
                    server.kill()
                    await asyncio.sleep(1.0)
                    await asyncio.to_thread(server.start)
                    await until(lambda: set(jobs.done) == {"r0", "r1", "r2", "r3"})
                    await scheduler.ended("r0")
                    assert await waits
                    await emptied(scheduler)

            run(scheduler, body)

    def test_a_connection_that_is_cut_is_made_again(self, scheduler: RedisScheduler, server: redis.Redis) -> None:
        """All of them, again and again, while jobs are done and somebody waits."""

        async def body() -> None:
            jobs = Jobs(takes_s=0.02)
            waits = asyncio.create_task(scheduler.wait("told", 20))
            async with at_work(scheduler, jobs, slots=2):
                for n in range(20):
                    await scheduler.submit(Job(execution_id=f"r{n}", agent="a"))
                    if n % 5 == 0:
                        server.client_kill_filter(_type="normal", skipme=True)
                        server.client_kill_filter(_type="pubsub", skipme=True)
                await until(lambda: len(set(jobs.done)) == 20)
                # While the listener is away: the message itself is lost.
                server.client_kill_filter(_type="pubsub", skipme=True)
                await scheduler.ended("told")
                assert await waits

        run(scheduler, body)

    def test_a_server_that_is_not_there_is_a_store_error(self) -> None:
        """With where it was looked for, and without the password."""
        scheduler = RedisScheduler("redis://:secret@127.0.0.1:1/0")

        async def body() -> None:
            with pytest.raises(StoreError, match=r"redis://127.0.0.1:1/0 failed.*is it running") as caught:
                await scheduler.submit(Job(execution_id="one", agent="a"))
            assert "secret" not in str(caught.value)

        run(scheduler, body)

    def test_a_server_that_wants_a_password_says_what_to_give(self) -> None:
        """None, and a wrong one."""
        with RedisServer("--appendonly", "yes") as server:
            with redis.Redis.from_url(server.url) as client:
                client.config_set("requirepass", "right")
            for url in (server.url, server.url.replace("//", "//:wrong@")):
                scheduler = RedisScheduler(url)

                async def body(scheduler: RedisScheduler = scheduler) -> None:
                    with pytest.raises(ConfigError, match="redis://:PASSWORD@"):
                        await scheduler.stats()

                run(scheduler, body)

    def test_a_server_that_forgets_is_named(self, caplog: pytest.LogCaptureFixture) -> None:
        """One without an append-only file is a warning, one that evicts is refused; as is one that is too old."""
        with RedisServer() as server:
            scheduler = RedisScheduler(server.url)

            async def body() -> None:
                await scheduler.stats()

            with caplog.at_level(logging.WARNING):
                run(scheduler, body)
            assert "set appendonly yes" in caplog.text
        with pytest.raises(ConfigError, match="noeviction"):
            check("it", {"redis_version": "7.0.1", "maxmemory": 1, "maxmemory_policy": "allkeys-lru"})
        with pytest.raises(ConfigError, match=r"6\.2 or newer"):
            check("it", {"redis_version": "6.0.16"})

    @pytest.mark.parametrize(
        "url",
        ["redis://h:port/0", "redis://h/0?prefix=", "redis://h/0?prefix=a b", "redis://h/0?no_such=1", "http://h"],
    )
    def test_a_url_that_is_wrong_says_what_to_give(self, url: str) -> None:
        """When it is read, not when it is used."""
        with pytest.raises(ConfigError, match="give redis://host:port/db"):
            RedisScheduler(url)

    def test_what_is_no_job_of_a_worker_is_refused(self, scheduler: RedisScheduler) -> None:
        """A priority that there is not, and a worker without a slot."""

        async def body() -> None:
            with pytest.raises(ConfigError, match="high, normal, low"):
                await scheduler.submit(Job(execution_id="one", agent="a", priority="urgent"))  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match="1 or more"):
                await scheduler.work(Jobs(), slots=0, stop=asyncio.Event())

        run(scheduler, body)


def test_it_is_opened_by_its_url(url: str) -> None:
    """Through the hook, as every scheduler; another scheme is nobody's here."""
    manager, _ = make_manager([])
    opened = manager.hook.oao_open_scheduler(url=url, settings=SchedulerSettings())
    assert isinstance(opened, RedisScheduler)
    assert manager.hook.oao_open_scheduler(url="nats://host", settings=SchedulerSettings()) is None


def test_it_may_be_used_from_one_loop_after_another(url: str) -> None:
    """A program that is not asynchronous asks with `asyncio.run`, each time in a new loop."""
    code = (
        "import asyncio; from oao_harness.schedulers.redis import RedisScheduler; "
        "from oao_hookspecs.schedulers import Job; "
        f"found = RedisScheduler({url!r}); "
        "[asyncio.run(found.submit(Job(execution_id=str(n), agent='a'))) for n in range(3)]; "
        "print(asyncio.run(found.stats()).queued)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "3\n", done.stderr
