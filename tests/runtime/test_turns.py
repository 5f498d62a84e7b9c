"""Served calls that overlapped when they were recorded end in the recorded order, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import pytest
import trio

import oao_harness as oao
from oao_harness import MemoryStore, Orchestrator
from oao_harness.journal.recording import Recording

_RACE = random.SystemRandom()
_ORDER: list[str] = []


def shuffle() -> None:
    """Let another one be the first."""
    _ORDER[:] = _RACE.sample("abcdef", 6)


async def my_turn(k: str) -> None:
    """Return in the shuffled order; never two in the same round of the loop, which are one event to it."""
    while _ORDER[0] != k:
        await asyncio.sleep(0.0005)
    for _ in range(10):
        await asyncio.sleep(0)
    _ORDER.remove(k)


@oao.tool
async def work(k: str) -> str:
    await my_turn(k)
    return k


@oao.tool
async def slowest_first(k: str) -> str:
    await asyncio.sleep(0.04 * (3 - "abc".index(k)))
    return k


@oao.tool
async def talk(k: str) -> AsyncIterator[str]:
    for i in range(3):
        if i == 2:
            await my_turn(k)
        await asyncio.sleep(0)
        yield f"{k}{i}"


@oao.tool
def blocking(k: str) -> str:
    time.sleep(0.03 * (3 - "abc".index(k)))
    return k


def recorded(agent: Any) -> tuple[Recording, Any]:
    store = MemoryStore()
    report = Orchestrator(store=store).run(agent, "t")
    assert report.status == "SUCCESS", report.error
    return Recording.from_records(list(store.read(report.execution_id))), report.final_output


def replayed(agent: Any, recording: Recording) -> Any:
    began = time.monotonic()
    report = Orchestrator().replay(agent, "t", recording)
    assert report.status == "SUCCESS", report.error
    assert time.monotonic() - began < 2
    return report.final_output


async def as_they_come(task: str) -> str:
    return "".join([await one for one in asyncio.as_completed([work(k) for k in "abcdef"])])


async def first_of_many(task: str) -> list[str]:
    """The first one wins, and the others are cancelled."""
    tasks = [asyncio.create_task(work(k), name=k) for k in "abcdef"]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for one in pending:
        one.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return sorted(one.result() for one in done)


async def in_a_group(task: str) -> str:
    found: list[str] = []

    async def one(k: str) -> None:
        found.append(await work(k))

    async with asyncio.TaskGroup() as group:
        for k in "abcdef":
            group.create_task(one(k))
    return "".join(found)


async def streams(task: str) -> str:
    """Each is read to its end by a task of its own."""
    ended: list[str] = []

    async def one(k: str) -> None:
        async for _ in talk(k):
            pass
        ended.append(k)

    await asyncio.gather(*(one(k) for k in "abcdef"))
    return "".join(ended)


@pytest.mark.parametrize("agent", [as_they_come, first_of_many, in_a_group, streams])
def test_the_recorded_order_of_completion_is_seen_again(agent: Any) -> None:
    """15 recordings of a race, and 15 replays that see it end as it did."""
    for _ in range(15):
        shuffle()
        recording, output = recorded(agent)
        assert replayed(agent, recording) == output


def test_calls_that_no_longer_run_together_do_not_wait_for_each_other() -> None:
    """Recorded side by side, the last one ended first; replayed one after the other, each ends all the same."""

    async def together(task: str) -> list[str]:
        return [*await asyncio.gather(*(slowest_first(k) for k in "abc"))]

    async def one_by_one(task: str) -> list[str]:
        return [await slowest_first(k) for k in "abc"]

    recording, output = recorded(together)
    assert [event.n for event in sorted(recording.events, key=lambda event: event.end)] == [3, 2, 1]
    assert replayed(one_by_one, recording) == output


def test_a_call_that_another_one_waits_for_ends_before_it() -> None:
    """The program itself now lets the call that ended first wait for the one that ended last."""

    async def together(task: str) -> list[str]:
        return [*await asyncio.gather(*(slowest_first(k) for k in "abc"))]

    async def chained(task: str) -> list[str]:
        over: dict[str, asyncio.Event] = {k: asyncio.Event() for k in "abc"}

        async def one(k: str, after: str | None) -> str:
            if after is not None:
                await over[after].wait()
            answer = await slowest_first(k)
            over[k].set()
            return answer

        return [*await asyncio.gather(one("a", None), one("b", "a"), one("c", "b"))]

    recording, output = recorded(together)
    assert replayed(chained, recording) == output


def test_a_stream_that_is_read_between_other_calls_does_not_block_them() -> None:
    """Whoever reads it waits for a call that ended later than the stream did: neither waits for the other."""

    shuffle()
    _ORDER.sort()

    async def together(task: str) -> list[str]:
        async def read() -> str:
            return "".join([chunk async for chunk in talk("a")])

        return [*await asyncio.gather(read(), slowest_first("a"))]

    async def between(task: str) -> list[str]:
        text = ""
        answer = ""
        async for chunk in talk("a"):
            text += chunk
            answer = answer or await slowest_first("a")
        return [text, answer]

    recording, output = recorded(together)
    assert replayed(between, recording) == output


def test_threads_mostly_see_the_recorded_order() -> None:
    """Best effort: the threads of a pool hand their results on by themselves. By chance it were 5 of 30."""

    def agent(task: str) -> str:
        with ThreadPoolExecutor(3) as pool:
            running = [pool.submit(contextvars.copy_context().run, blocking, k) for k in "abc"]
            return "".join(one.result() for one in as_completed(running))

    recording, output = recorded(agent)
    assert sum(replayed(agent, recording) == output for _ in range(30)) > 10


def test_a_sync_call_inside_of_a_loop_does_not_hold_it_up() -> None:
    """The loop must go on, or nobody else could come."""

    def in_threads(task: str) -> list[str]:
        with ThreadPoolExecutor(3) as pool:
            return [*pool.map(lambda k: blocking(k), "abc")]

    async def in_the_loop(task: str) -> list[str]:
        return [blocking(k) for k in "abc"]

    recording, output = recorded(in_threads)
    assert replayed(in_the_loop, recording) == output


def test_trio_sees_the_recorded_order_too() -> None:
    """Served calls wait for each other on whichever loop they run."""

    @oao.tool
    async def nap(k: str) -> str:
        await trio.sleep(0.04 * (3 - "abc".index(k)))
        return k

    def agent(task: str) -> str:
        found: list[str] = []

        async def one(k: str) -> None:
            found.append(await nap(k))

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for k in "abc":
                    nursery.start_soon(one, k)

        trio.run(main)
        return "".join(found)

    recording, output = recorded(agent)
    for _ in range(5):
        assert replayed(agent, recording) == output


def test_threads_that_did_not_overlap_by_chance_replay_all_the_same() -> None:
    """Three threads with three quick calls each: however they raced then and race now, the recorded order is kept."""

    @oao.tool
    def step(who: str, n: int) -> str:
        return f"{who}{n}"

    def agent(task: object) -> list[str]:
        with ThreadPoolExecutor(3) as pool:
            return [*pool.map(lambda who: "".join(step(who, n) for n in range(3)), "abc")]

    orchestrator = oao.Orchestrator()
    live = orchestrator.run(agent, "t")
    recording = Recording.from_records(orchestrator.store.read(live.execution_id))

    for _ in range(30):
        again = oao.Orchestrator().replay(agent, "t", recording)
        assert (again.status, again.error) == ("SUCCESS", None)
        assert again.final_output == ["a0a1a2", "b0b1b2", "c0c1c2"]


async def test_tasks_that_did_not_overlap_by_chance_replay_all_the_same() -> None:
    """The order in which tasks begin is that of a set: another one in each process."""

    @oao.tool
    async def step(who: str) -> str:
        return who

    async def agent(order: str) -> list[str]:
        return sorted(await asyncio.gather(*(step(who) for who in order)))

    orchestrator = oao.Orchestrator()
    live = await orchestrator.run_async(agent, "abc")
    recording = Recording.from_records(orchestrator.store.read(live.execution_id))

    again = oao.Orchestrator().replay(agent, "cab", recording)
    assert (again.status, again.final_output) == ("SUCCESS", ["a", "b", "c"]), again.error
    late = oao.Orchestrator().replay(agent, "c", recording)
    assert "came before tool step #1, #2" in str(late.error)
