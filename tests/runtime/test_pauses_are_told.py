"""A listener hears where a run is put down and where it goes on, and what traces it has is in the journal."""

from __future__ import annotations

import asyncio
from pathlib import Path

from oao_harness import MemoryStore, Orchestrator, Retries, SQLiteStore, tool
from oao_harness.fleet.agents import Agents
from oao_harness.fleet.worker import Fleet
from oao_hookspecs import Ask, Principal, RunView, ToolCall, hookimpl

ME = Principal(id="me")


class Listener:
    """Writes down what it hears of runs."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    @hookimpl
    def oao_run_started(self, event: object) -> None:
        self.heard.append(event)

    @hookimpl
    def oao_run_resumed(self, event: object) -> None:
        self.heard.append(event)

    @hookimpl
    def oao_run_paused(self, event: object) -> None:
        self.heard.append(event)

    @hookimpl
    def oao_run_finished(self, event: object) -> None:
        self.heard.append(event)

    @hookimpl
    def oao_traceparent(self, run: RunView | None) -> str:
        return "of the submitter" if run is None else f"of {run.agent_name}"

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.heard]


class AskBeforePaying:
    """Holds every call of `pay`."""

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Ask | None:
        return Ask(rule="pay", reason="pays") if call.name == "pay" else None


@tool
def pay(amount: int) -> str:
    return f"paid {amount}"


def payer(task: str) -> str:
    return pay(5)


def test_a_run_that_waits_for_a_person_is_paused_and_resumed() -> None:
    """Each once, and nothing is told of a resume that starts nothing."""
    listener = Listener()
    orchestrator = Orchestrator(AskBeforePaying(), MemoryStore(), [listener])
    held = orchestrator.run(payer, "go")
    assert held.status == "SUSPENDED"
    orchestrator.resume(held.execution_id, payer)
    assert listener.names == ["RunStarted", "RunPaused"]
    assert listener.heard[1].status == "SUSPENDED"
    orchestrator.approve(held.execution_id, by=ME)
    assert orchestrator.resume(held.execution_id, payer).status == "SUCCESS"
    assert listener.names == ["RunStarted", "RunPaused", "RunResumed", "RunFinished"]
    assert listener.heard[2].began_in == "of payer"
    plan = next(one for one in orchestrator.store.read(held.execution_id) if one["type"] == "plan")
    assert plan["traceparent"] == "of payer"


def test_a_nested_run_that_had_ended_is_not_told_again(tmp_path: Path) -> None:
    """It only hands out its past."""
    listener = Listener()
    store = SQLiteStore(tmp_path / "runs.db")
    inner = Orchestrator(plugins=[listener])

    def helper(task: str) -> str:
        return task

    def outer(task: str) -> str:
        inner.run(helper, "help", agent_name="helper")
        return pay(1)

    orchestrator = Orchestrator(AskBeforePaying(), store, [listener])
    held = orchestrator.run(outer, "go")
    orchestrator.approve(held.execution_id, by=ME)
    assert orchestrator.resume(held.execution_id, outer).status == "SUCCESS"
    told = [(type(event).__name__, getattr(event, "agent_name", "")) for event in listener.heard]
    assert [name for name, agent in told if agent == "helper"] == ["RunStarted"]
    assert [name for name, _ in told] == [
        "RunStarted",
        "RunStarted",
        "RunFinished",
        "RunPaused",
        "RunResumed",
        "RunFinished",
    ]


def test_a_run_whose_journal_is_lost_is_not_over(tmp_path: Path) -> None:
    """Whoever took it over says how it ends: here it is lost, not finished."""
    listener = Listener()
    store = SQLiteStore(tmp_path / "runs.db")
    orchestrator = Orchestrator(None, store, [listener], lease_s=60)

    def robbed(task: str) -> str:
        store.claim("r1", over=1)
        return pay(1)

    report = orchestrator.run(robbed, "go", execution_id="r1")
    assert report.status == "FAILED"
    assert listener.names == ["RunStarted", "RunPaused"]
    assert listener.heard[1].status == "LOST"


async def test_a_job_belongs_to_the_trace_of_who_submitted_it(tmp_path: Path) -> None:
    """The journal has it, and the worker's listener hears it; a job that is tried again says so."""
    listener = Listener()
    sign = tmp_path / "failed once"

    def flaky(task: str) -> str:
        if not Path(task).exists():
            Path(task).touch()
            raise ConnectionError("away")
        return "done"

    fleet = Fleet("local:", SQLiteStore(tmp_path / "runs.db"), Agents.of({"flaky": flaky}), plugins=[listener])
    try:
        soon = Retries(times=2, first_s=0.01)
        job = await fleet.submit("flaky", str(sign), traceparent="of the caller", retries=soon)
        stop = asyncio.Event()
        working = asyncio.create_task(fleet.work(1, stop))
        report = await fleet.fetch(job, 20)
        stop.set()
        await working
    finally:
        await fleet.close()
    assert report is not None
    assert report.status == "SUCCESS"
    assert listener.names == ["RunStarted", "RunPaused", "RunResumed", "RunFinished"]
    started, paused, resumed, _ = listener.heard
    assert (started.traceparent, resumed.traceparent, paused.status) == ("of the caller", "of the caller", "QUEUED")
    assert started.waited_s >= 0
