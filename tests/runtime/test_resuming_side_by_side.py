"""Runs whose threads, tasks and nested runs raced when they were cut off: chance must not say whether they go on."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from oao_harness import Orchestrator, tool
from oao_hookspecs import Json, Record, Store

RAN: list[Json] = []
ORDER: list[int] = []
_STEP_S = 0.02


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()
    ORDER[:] = [1, 2, 3]


@tool(effect="idempotent")
def act(who: int, step: int) -> int:
    RAN.append([who, step])
    return who


@tool(effect="idempotent")
async def act_async(who: int, step: int) -> int:
    RAN.append([who, step])
    return who


def in_threads(work: Callable[[int], object]) -> str:
    def one(who: int) -> None:
        time.sleep(_STEP_S * ORDER.index(who))
        work(who)

    threads = [threading.Thread(target=one, args=(who,)) for who in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return "done"


def threads(task: str) -> str:
    return in_threads(lambda who: act(who, 1))


async def tasks(task: str) -> str:
    async def one(who: int) -> None:
        await asyncio.sleep(_STEP_S * ORDER.index(who))
        await act_async(who, 1)

    await asyncio.gather(one(1), one(2), one(3))
    return "done"


def nested(who: int) -> int:
    return act(who, 1) + act(who, 2)


def nested_in_threads(task: str) -> str:
    return in_threads(lambda who: Orchestrator().run(nested, who))


async def nested_in_tasks(task: str) -> str:
    async def one(who: int) -> None:
        await asyncio.sleep(_STEP_S * ORDER.index(who))
        await Orchestrator().run_async(nested, who)

    await asyncio.gather(one(1), one(2), one(3))
    return "done"


def keep(store: Store, execution_id: str, records: Sequence[Record]) -> None:
    kept = [{key: value for key, value in one.items() if key != "hash"} for one in records]
    store.append(execution_id, store.claim(execution_id), *({**one, "seq": seq} for seq, one in enumerate(kept, 1)))


@pytest.mark.parametrize("agent", [threads, tasks])
@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3)))[1:])
def test_calls_that_raced_may_come_in_any_order_again(store: Store, agent: Any, order: tuple[int, ...]) -> None:
    """Cut off when two of three had ended: the new one waits for them, whichever of the three is asked for first."""
    whole = Orchestrator().store
    assert Orchestrator(store=whole).run(agent, "t", execution_id="r").status == "SUCCESS"
    records = list(whole.read("r"))
    third = next(index for index, one in enumerate(records) if one["type"] == "call" and one["n"] == 3)
    ended = {one["n"] for one in records[:third] if one["type"] == "outcome"}
    # Two of them, unless the machine was busy with something else.
    asked = {one["n"]: list(one["req"].values()) for one in records if one["type"] == "call"}  # type: ignore[union-attr]
    missing = [asked[n] for n in asked if n not in ended]
    keep(store, "r", records[:third])
    RAN.clear()
    ORDER[:] = order

    report = Orchestrator(store=store).resume("r", agent)

    assert (report.status, report.error, report.tool_calls) == ("SUCCESS", None, 3)
    assert sorted(missing) == sorted(RAN)  # type: ignore[type-var]


@pytest.mark.parametrize("agent", [nested_in_threads, nested_in_tasks])
@pytest.mark.parametrize("begun", [1, 2])
def test_a_nested_run_that_had_not_begun_takes_no_siblings_journal(store: Store, agent: Any, begun: int) -> None:
    """Cut off when some of three nested runs had made their first call: each goes on with its own."""
    whole = Orchestrator().store
    assert Orchestrator(store=whole).run(agent, "t", execution_id="r").status == "SUCCESS"
    records = list(whole.read("r"))
    children = [one for one in records if one["type"] == "child"][:begun]
    plan = next(index for index, one in enumerate(records) if one["type"] == "plan")
    keep(store, "r", [*records[: plan + 1], *children])
    for child in children:
        inner = list(whole.read(str(child["execution_id"])))
        first = next(index for index, one in enumerate(inner) if one["type"] == "outcome")
        keep(store, str(child["execution_id"]), inner[: first + 1])
    RAN.clear()
    ORDER[:] = [3, 2, 1]

    report = Orchestrator(store=store).resume("r", agent)

    assert (report.status, report.error, report.tool_calls) == ("SUCCESS", None, 6)
    again = [[who, step] for who in (1, 2, 3) for step in (1, 2) if who > begun or step == 2]
    assert sorted(RAN, key=str) == again


@tool(effect="idempotent")
def act_at_once(who: int) -> int:
    RAN.append(who)
    return who


def test_sync_calls_after_async_ones_come_as_they_came(store: Store) -> None:
    """Cut off after each record: what is served takes no time, and yet it ends in the order in which it had ended."""

    async def one(who: int) -> int:
        await look_async(who)
        return act_at_once(who)

    @tool(effect="pure")
    async def look_async(who: int) -> int:
        await asyncio.sleep(_STEP_S / who)
        return who

    async def agent(task: str) -> list[int]:
        return await asyncio.gather(one(1), one(2))

    whole = Orchestrator().store
    assert Orchestrator(store=whole).run(agent, "t", execution_id="r").status == "SUCCESS"
    records = list(whole.read("r"))
    calls = [index for index, one in enumerate(records) if one["type"] in {"call", "outcome"}]
    for index in calls:
        keep(store, f"r{index}", [{**records[0], "execution_id": f"r{index}"}, *records[1 : index + 1]])
        report = Orchestrator(store=store).resume(f"r{index}", agent)
        assert (report.status, report.error) == ("SUCCESS", None), f"cut after {records[index]}"


def test_an_idempotent_call_that_was_cut_off_is_not_made_in_other_words(store: Store) -> None:
    """It would have another idempotency key: the server behind it would do it twice."""
    references = itertools.count()

    def agent(task: str) -> int:
        return act(1, next(references))

    whole = Orchestrator().store
    Orchestrator(store=whole).run(agent, "t", execution_id="r")
    keep(store, "r", list(itertools.takewhile(lambda one: one["type"] != "outcome", whole.read("r"))))
    RAN.clear()

    began = time.monotonic()
    report = Orchestrator(store=store).resume("r", agent)

    assert (report.status, RAN) == ("FAILED", [])
    assert "replay diverged" in (report.error or "")
    assert time.monotonic() - began < 2, "nobody else was there to wait for"
