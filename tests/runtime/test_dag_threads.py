"""Sync nodes of graphs: how threads go from one to the next, and what happens where one of them hangs."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from oao_harness import StrictPolicy, ToolPolicy, tool
from oao_harness.runtime.dag import GraphExecutor, TaskGraph, TaskNode
from oao_hookspecs import Deny, RunView, hookimpl


def one(task: object) -> int:
    return 1


def naps(task: object) -> None:
    time.sleep(0.001)


@tool
def look(what: str) -> str:
    return what


def test_a_chain_stays_in_one_thread() -> None:
    """Where one node follows the other, the thread of the first one runs them all, and it is not the loop's."""
    threads: list[int] = []

    def agent(task: object) -> None:
        threads.append(threading.get_ident())

    graph = TaskGraph(TaskNode(f"n{n}", agent, "t", {f"n{n - 1}"} if n else ()) for n in range(20))
    results = GraphExecutor(graph).execute("x")

    assert results.workflow.status == "SUCCESS"
    assert len(threads) == 20
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


@pytest.mark.parametrize("limit", [1, 3])
def test_as_many_run_at_once_as_the_limit_says(limit: int) -> None:
    """Nodes that wait for each other meet, and never more of them than there are slots."""
    meeting, lock, inside, most = threading.Barrier(limit), threading.Lock(), [0], [0]

    def agent(task: object) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        meeting.wait(10)
        with lock:
            inside[0] -= 1

    graph = TaskGraph([TaskNode("first", one), *(TaskNode(f"n{n}", agent, "t", {"first"}) for n in range(9))])
    results = GraphExecutor(graph, max_concurrency=limit).execute("x")

    assert {report.status for report in results.values()} == {"SUCCESS"}
    assert most == [limit]


def test_an_async_node_gets_its_turn() -> None:
    """With one slot, an async node that waits does not come after all sync nodes that are ready."""
    order: list[str] = []

    def agent(task: object) -> None:
        order.append("sync")

    async def other(task: object) -> None:
        order.append("async")

    graph = TaskGraph([TaskNode("async", other), *(TaskNode(f"n{n}", agent) for n in range(50))])
    GraphExecutor(graph, max_concurrency=1).execute("x")

    assert len(order) == 51
    assert order.index("async") < 25


def test_nodes_begin_in_the_order_in_which_they_were_added() -> None:
    """However many threads there are: the journal of the workflow names them in order."""
    graph = TaskGraph(TaskNode(f"n{n}", naps) for n in range(40))
    executor = GraphExecutor(graph, workflow_id="flow")
    executor.execute("x")

    begun = [record["node"] for record in executor.store.read("flow") if record["type"] == "child"]
    assert begun == [f"n{n}" for n in range(40)]


def test_a_denial_does_not_wait_for_a_node_that_hangs() -> None:
    """A denied call halts the workflow; a node that hangs is reported without its thread, which may do no more."""
    hanging, free, said = threading.Event(), threading.Event(), list[str]()

    def hangs(task: object) -> None:
        hanging.set()
        free.wait(20)
        try:
            look("late")
        except BaseException as error:
            said.append(str(error))
            raise

    def breaks(task: object) -> None:
        assert hanging.wait(10)
        look("x")

    graph = TaskGraph([TaskNode("hangs", hangs), TaskNode("breaks", breaks), TaskNode("never", hangs, "t", {"hangs"})])
    executor = GraphExecutor(graph, ToolPolicy(deny=["look"]))
    began = time.monotonic()
    results = executor.execute("x")
    took_s = time.monotonic() - began
    free.set()
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)

    assert took_s < 5
    assert results.workflow.status == "FAILED"
    assert {name: report.status for name, report in results.items()} == {
        "hangs": "FAILED",
        "breaks": "FAILED",
        "never": "SKIPPED",
    }
    assert said
    ends = [record for record in executor.store.read(results["hangs"].execution_id) if record["type"] == "run.finished"]
    assert [end["status"] for end in ends] == ["FAILED"]


def test_a_node_that_hangs_beyond_its_own_limit_leaves_its_slot() -> None:
    """A node's own time limit ends it, although its thread hangs; with one slot, the others run after it."""
    free = threading.Event()

    def hangs(task: object) -> None:
        free.wait(20)

    limit = StrictPolicy(timeout_seconds=0.2)
    graph = TaskGraph([TaskNode("hangs", hangs, policy=limit), *(TaskNode(f"n{n}", one) for n in range(3))])
    began = time.monotonic()
    results = GraphExecutor(graph, max_concurrency=1).execute("x")
    free.set()

    assert time.monotonic() - began < 5
    assert "timeout" in str(results["hangs"].error)
    assert [results[f"n{n}"].status for n in range(3)] == ["SUCCESS"] * 3


async def test_an_async_policy_is_asked_on_the_callers_loop() -> None:
    """Who must be awaited about tasks may hold what belongs to the caller's loop."""
    loops: list[object] = []

    class Asks:
        @hookimpl
        async def oao_decide_run(self, run: RunView) -> Deny | None:
            await asyncio.sleep(0)
            loops.append(asyncio.get_running_loop())
            return None

    graph = TaskGraph([TaskNode("a", one), TaskNode("b", one, "t", {"a"})])
    results = await GraphExecutor(graph, Asks()).execute_async("x")

    assert results.workflow.status == "SUCCESS"
    assert loops == [asyncio.get_running_loop()] * 3


def test_a_refused_task_of_a_node_halts_the_workflow() -> None:
    """A policy that refuses what a node is asked stops the graph there."""
    ran: list[object] = []

    class Refuses:
        @hookimpl
        def oao_decide_run(self, run: RunView) -> Deny | None:
            return Deny(rule="no", reason="not this") if run.task == "bad" else None

    graph = TaskGraph([TaskNode("a", ran.append, "bad"), TaskNode("b", ran.append, "t", {"a"})])
    results = GraphExecutor(graph, Refuses()).execute("x")

    assert ran == []
    assert results.workflow.status == "FAILED"
    assert results["a"].violation is not None
    assert results["b"].status == "SKIPPED"
