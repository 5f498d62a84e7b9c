"""Nodes of a graph that other workers run: one tree, one budget, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import oao_harness as oao
import oao_hookspecs
from oao_harness import (
    AgentError,
    Agents,
    Fleet,
    FleetNodes,
    GraphExecutor,
    StrictPolicy,
    TaskGraph,
    TaskNode,
    UsageError,
)
from oao_harness.schedulers.local import LocalScheduler

made: list[str] = []


@oao.tool(effect="pure")
def look(topic: str) -> str:
    made.append(topic)
    return topic.upper()


def searching(task: str) -> str:
    return " ".join(look(f"{task.split()[0]}-{n}") for n in range(3))


def writing(task: str) -> str:
    return f"written: {task}"


async def hanging(task: str) -> str:
    made.append("hanging")
    await asyncio.sleep(60)
    return ""


AGENTS = Agents.of({"searching": searching, "hanging": hanging})


@pytest.fixture(autouse=True)
def _forget() -> None:
    made.clear()


@asynccontextmanager
async def working(tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet with one worker; the graph runs beside it, as another process would."""
    fleet, stop = Fleet(LocalScheduler(), f"sqlite:{tmp_path / 'fleet.db'}", AGENTS), asyncio.Event()
    worker = asyncio.create_task(fleet.work(4, stop, 2.0))
    try:
        yield fleet
    finally:
        stop.set()
        await worker
        await fleet.close()


def graph() -> TaskGraph:
    return TaskGraph(
        [
            TaskNode("left", "searching", "a"),
            TaskNode("right", "searching", "b"),
            TaskNode("write", writing, lambda outputs: f"{outputs['left']} {outputs['right']}", {"left", "right"}),
        ]
    )


async def test_workers_run_the_nodes_that_are_names(tmp_path: Path) -> None:
    """Results flow from workers to the node that runs here; each job says of which run it is a part."""
    async with working(tmp_path) as fleet:
        nodes = FleetNodes(fleet)
        results = await GraphExecutor(graph(), store=fleet.store, nodes=nodes).execute_async("x")
        first = next(iter(fleet.store.read(results["left"].execution_id)))
    assert results["write"].final_output == "written: A-0 A-1 A-2 B-0 B-1 B-2"
    assert [report.status for report in results.values()] == ["SUCCESS"] * 3
    assert (first["parent"], first["node"]) == (results.workflow.execution_id, "left")


async def test_one_budget_holds_over_workers(tmp_path: Path) -> None:
    """Six calls by two jobs, four allowed for the whole: four happen."""
    async with working(tmp_path) as fleet:
        limit = tmp_path / "limit.toml"
        limit.write_text("[limits]\nmax_tool_calls = 4\n")
        executor = GraphExecutor(
            graph(), str(limit), store=fleet.store, nodes=FleetNodes(fleet, policy=str(limit)), max_concurrency=1
        )
        results = await executor.execute_async("x")
    assert made == ["a-0", "a-1", "a-2", "b-0"]
    assert (results["left"].status, results["right"].status, results["write"].status) == (
        "SUCCESS",
        "FAILED",
        "SKIPPED",
    )
    assert "4" in str(results["right"].error)
    assert results.workflow.status == "FAILED"


async def test_a_cancelled_graph_cancels_its_jobs(tmp_path: Path) -> None:
    """The worker stops too."""
    async with working(tmp_path) as fleet:
        flow = TaskGraph([TaskNode("stop", "hanging", "x")])
        task = asyncio.create_task(GraphExecutor(flow, store=fleet.store, nodes=FleetNodes(fleet)).execute_async("x"))
        while "hanging" not in made:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(500):
            if {row.status for row in fleet.store.runs()} == {"FAILED"}:
                break
            await asyncio.sleep(0.01)
        assert {row.status for row in fleet.store.runs()} == {"FAILED"}


async def test_a_finished_node_of_another_worker_is_not_run_again(tmp_path: Path) -> None:
    """A node that fails for now suspends nothing that is done: the resumed graph takes it from its journal."""
    held = tmp_path / "held.toml"
    held.write_text('[tools]\nask = ["pay"]\n')

    @oao.tool(effect="once")
    def pay() -> str:
        made.append("pay")
        return "paid"

    async with working(tmp_path) as fleet:
        flow = TaskGraph([TaskNode("left", "searching", "a"), TaskNode("pay", lambda task: pay(), {"left"})])
        nodes = FleetNodes(fleet, policy=str(held))
        executor = GraphExecutor(flow, str(held), store=fleet.store, nodes=nodes, workflow_id="flow")
        first = await executor.execute_async("x")
        assert first.workflow.status == "SUSPENDED"
        assert made == ["a-0", "a-1", "a-2"]
        executor.orchestrator.approve(first["pay"].approvals[0]["id"], by=oao_hookspecs.Principal(id="dana"))
        second = await executor.resume_async()
    assert second.workflow.status == "SUCCESS"
    assert made == ["a-0", "a-1", "a-2", "pay"]


async def test_what_cannot_travel_is_refused(tmp_path: Path) -> None:
    """A policy that is an object, another store, an agent that nobody registered."""
    async with working(tmp_path) as fleet:
        with pytest.raises(UsageError, match="name it"):
            FleetNodes(fleet, policy=[StrictPolicy()])
        unknown = TaskGraph([TaskNode("a", "serching")])
        results = await GraphExecutor(unknown, store=fleet.store, nodes=FleetNodes(fleet)).execute_async("x")
        assert "searching" in str(results["a"].error)
        elsewhere = await GraphExecutor(graph(), nodes=FleetNodes(fleet)).execute_async("x")
        assert "store=fleet.store" in str(elsewhere["left"].error)
    assert made == []
    with pytest.raises(AgentError, match="serching"):
        AGENTS.get("serching")
