"""Whose a run is: nothing that is made of it, or in it, is somebody else's."""

from __future__ import annotations

import asyncio

import pytest

import oao_harness as oao
from oao_harness import Agents, Fleet, FleetNodes, GraphExecutor, MemoryStore, Orchestrator, TaskGraph, TaskNode
from oao_harness.fleet.jobs import Jobs
from oao_harness.schedulers.local import LocalScheduler
from oao_hookspecs import Principal, RunQuery, Store

ANN = Principal(id="ann", roles=("clerk",), tenant="acme")


@oao.tool
def find(what: str) -> str:
    return f"found {what}"


def agent(task: str) -> str:
    return find(task) + find("more")


def tenants(store: Store) -> dict[str, str]:
    return {row.execution_id: row.tenant for row in store.runs(None)}


@pytest.mark.parametrize("as_", [None, Principal(id="bob"), Principal(id="eve", tenant="evil")])
def test_a_nested_run_is_whose_its_outer_run_is(store: Store, as_: Principal | None) -> None:
    """Whoever the agent's code lets it act for: a tenant cannot put a run into another one's list."""
    orchestrator = Orchestrator(store=store)

    def outer(task: str) -> str:
        return str(orchestrator.run(agent, task, execution_id="inner", principal=as_).final_output)

    assert orchestrator.run(outer, "t", execution_id="outer", principal=ANN).status == "SUCCESS"
    assert tenants(store) == {"outer": "acme", "inner": "acme"}
    assert store.runs(query=RunQuery(tenant="evil")) == []


def test_a_run_inside_of_nobodys_is_nobodys(store: Store) -> None:
    """Only who sees all runs sees either of them."""
    orchestrator = Orchestrator(store=store)

    def outer(task: str) -> str:
        return str(orchestrator.run(agent, task, execution_id="inner", principal=ANN).final_output)

    assert orchestrator.run(outer, "t", execution_id="outer").status == "SUCCESS"
    assert tenants(store) == {"outer": "", "inner": ""}


def test_a_fork_is_whose_its_source_is(store: Store) -> None:
    """Of a run and of the runs nested in it; of a fork of a fork too."""
    orchestrator = Orchestrator(store=store)

    def outer(task: str) -> str:
        orchestrator.run(agent, task)
        return find("end")

    first = orchestrator.run(outer, "t", principal=ANN)
    second = orchestrator.fork(first.execution_id, outer, 1)
    assert orchestrator.fork(second.execution_id, outer, 1).status == "SUCCESS"
    assert list(tenants(store).values()) == ["acme"] * 6


async def test_a_job_and_its_forks_are_whose_it_was_submitted_for(store: Store) -> None:
    """A fork is no job any more, and nobody is named in it: it is the tenant's still, and so is what runs in it."""
    orchestrator = Orchestrator(store=store)

    def outer(task: str) -> str:
        return str(orchestrator.run(agent, task).final_output)

    fleet, stop = Fleet(LocalScheduler(), store, Agents.of({"outer": outer})), asyncio.Event()
    worker = asyncio.create_task(fleet.work(1, stop, 2.0))
    job = await fleet.submit("outer", "t", tenant="acme")
    assert tenants(store)[job] == "acme"
    report = await fleet.fetch(job, 10)
    stop.set()
    await worker
    assert report is not None
    assert report.status == "SUCCESS"
    forked = await asyncio.to_thread(orchestrator.fork, job, outer, 1)
    assert forked.status == "SUCCESS"
    assert list(tenants(store).values()) == ["acme"] * 4
    first = next(iter(store.read(forked.execution_id)))
    assert "job" not in first


async def test_parts_of_a_workflow_that_workers_run_are_whose_the_workflow_is() -> None:
    """Of its fork too."""
    store = MemoryStore()
    fleet, stop = Fleet(LocalScheduler(), store, Agents.of({"agent": agent})), asyncio.Event()
    worker = asyncio.create_task(fleet.work(1, stop, 2.0))
    graph = TaskGraph([TaskNode("far", "agent", "a"), TaskNode("near", agent, "b", {"far"})])
    executor = GraphExecutor(graph, store=store, nodes=FleetNodes(fleet))
    results = await executor.execute_async("x", principal=ANN)
    again = await executor.fork_async(results.workflow.execution_id, at=["near"])
    stop.set()
    await worker
    await fleet.close()
    assert [report.status for report in (*results.values(), *again.values())] == ["SUCCESS"] * 4
    assert list(tenants(store).values()) == ["acme"] * 5
    assert next(iter(store.read(results["far"].execution_id)))["job"]["tenant"] == "acme"  # type: ignore[index,call-overload]


async def test_a_resumed_run_is_whose_it_was() -> None:
    """What it starts after that is so too, where only its job says whose it is."""
    store = MemoryStore()
    orchestrator = Orchestrator(store=store)
    jobs = Jobs(LocalScheduler(), store, Agents.of({"agent": agent}))
    job = await jobs.submit("agent", "t", tenant="acme")

    def outer(task: str) -> str:
        return str(orchestrator.run(agent, task).final_output)

    report = await asyncio.to_thread(orchestrator.resume, job, outer, allow_changes=True)
    assert report.status == "SUCCESS"
    assert list(tenants(store).values()) == ["acme"] * 2
