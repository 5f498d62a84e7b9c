"""Runs of one loop that write together: in one round trip, each on its own account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis

from oao_harness import MemoryStore
from oao_harness.errors import FencedError
from oao_harness.journal.grouping import Group
from oao_harness.journal.writer import Writer
from oao_harness.runtime.clock import SystemClock
from oao_harness.stores.redis import RedisStore
from pytest_oao.testing import RedisServer

RUNS = [f"run-{n}" for n in range(20)]


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    opened = RedisStore(f"{redis_server.url}?prefix={uuid4().hex}")
    yield opened
    opened.close()


def writers(store: RedisStore) -> list[Writer]:
    found = [Writer(store, run, SystemClock()) for run in RUNS]
    for writer in found:
        writer.append("run.started", {"agent": "a"})
    return found


def types(store: RedisStore, run: str) -> list[object]:
    return [one["type"] for one in store.read(run)]


async def test_what_is_asked_at_once_is_one_round_trip(store: RedisStore, redis_server: RedisServer) -> None:
    """Claims, and what is written; a store of this process has nothing to gather."""
    first, *some = writers(store)
    group = Group.of(store, 60)
    assert group is not None
    assert group.is_here
    # The server knows all scripts now.
    first.append("note", {})
    await group.claim(RUNS[0])
    with redis.Redis.from_url(redis_server.url) as client:
        reads = client.info("stats")["total_reads_processed"]
        for writer in some:
            writer.append("note", {}, later=True)
        await asyncio.gather(*map(group.commit, some))
        await asyncio.gather(*map(group.claim, RUNS[1:]))
        # One of each, and this question; what is sent at once may come in two parts.
        assert client.info("stats")["total_reads_processed"] - reads <= 5
    assert all(types(store, run) == ["run.started", "note"] for run in RUNS)
    assert Group.of(MemoryStore(), 60) is None


async def test_one_that_is_refused_does_not_keep_the_others(store: RedisStore) -> None:
    """Another process has it: its records stay unwritten, all else is kept."""
    some, group = writers(store), Group(store, 60)
    store.claim(RUNS[3])
    for writer in some:
        writer.append("note", {}, later=True)
    found = await asyncio.gather(*map(group.commit, some), return_exceptions=True)
    assert [one for one, error in zip(RUNS, found, strict=True) if error is not None] == [RUNS[3]]
    assert isinstance(found[3], FencedError)
    assert [len(types(store, run)) for run in RUNS] == [2, 2, 2, 1] + [2] * 16


async def test_a_cancelled_commit_loses_nothing_and_writes_nothing_twice(store: RedisStore) -> None:
    """Whether it was cancelled before it was sent, or after it was answered: the next record goes on from there."""
    some, group = writers(store), Group(store, 60)
    for turns, writer in zip((0, 1, 2, 3), some, strict=False):
        writer.append("note", {}, later=True)
        task = asyncio.create_task(group.commit(writer))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        writer.append("end", {})
        assert types(store, writer.execution_id) == ["run.started", "note", "end"], turns


async def test_a_record_that_comes_meanwhile_is_written_in_order(store: RedisStore) -> None:
    """Between the asking and the sending another thread writes: what waited goes with that."""
    (writer, *_), group = writers(store), Group(store, 60)
    writer.append("note", {}, later=True)
    task = asyncio.create_task(group.commit(writer))
    await asyncio.sleep(0)
    await asyncio.to_thread(writer.append, "other", {})
    await task
    writer.append("end", {})
    assert types(store, writer.execution_id) == ["run.started", "note", "other", "end"]


async def test_a_cancelled_claim_is_not_left_behind(store: RedisStore) -> None:
    """Nobody would renew it, and the run would wait for it to lapse."""
    writers(store)
    group = Group(store, 60)
    for turns in range(4):
        task = asyncio.create_task(group.claim(RUNS[turns]))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            before = time.monotonic()
            store.claim(RUNS[turns])
            assert time.monotonic() - before < 5
