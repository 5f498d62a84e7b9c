"""Budgets that outlive a run: nested runs, other orchestrators, replays and resumes draw from them once."""

from __future__ import annotations

import os
from typing import Any

import pytest

from oao_harness import Orchestrator, SharedBudget, SQLiteStore, StoreError, model, tool
from oao_harness.journal.recording import Recording
from oao_hookspecs import Approve, Ask, Json, Limits, Principal, ToolCall, hookimpl


@tool
def fetch(key: str) -> str:
    return key


@model(name="m")
def think(prompt: str) -> dict[str, Json]:
    return {"usage": {"input_tokens": 10, "output_tokens": 5}}


def agent(task: str) -> str:
    think(task)
    return fetch("a") + fetch("b")


@pytest.fixture(params=["memory", "sqlite"])
def budget(request: pytest.FixtureRequest, tmp_path: Any) -> SharedBudget:
    url = f"memory:{tmp_path.name}" if request.param == "memory" else f"sqlite:{tmp_path}/budget.db"
    return SharedBudget("team", url, limits=Limits(max_tool_calls=5, max_tokens=100))


def spent(budget: SharedBudget, counter: str) -> int:
    found = budget.totals().get(counter)
    return 0 if found is None else found.spent


def test_runs_of_several_orchestrators_draw_from_one_budget(budget: SharedBudget) -> None:
    """The third run is refused, by the budget's own rule."""
    reports = [Orchestrator(budget=budget).run(agent, "t") for _ in range(3)]
    assert [report.status for report in reports] == ["SUCCESS", "SUCCESS", "FAILED"]
    assert reports[2].violation is not None
    assert reports[2].violation["rule"] == "max_tool_calls"
    assert "budget 'team'" in reports[2].violation["reason"]
    assert (spent(budget, "tool_calls"), spent(budget, "tokens")) == (5, 45)
    assert all(amounts.held == 0 for amounts in budget.totals().values())


def test_a_nested_run_is_charged_once(budget: SharedBudget) -> None:
    """Both orchestrators name the budget; a call of the inner run is one call."""
    inner = Orchestrator(budget=budget)

    def outer(task: str) -> str:
        return str(inner.run(agent, task).status)

    assert Orchestrator(budget=budget).run(outer, "t").final_output == "SUCCESS"
    assert (spent(budget, "tool_calls"), spent(budget, "model_calls")) == (2, 1)


def test_a_nested_run_under_no_budget_draws_from_the_outer_one(budget: SharedBudget) -> None:
    """A sub-agent cannot spend what its parent does not have."""
    inner = Orchestrator()

    def outer(task: str) -> str:
        return "".join(str(inner.run(agent, task).status) for _ in range(3))

    report = Orchestrator(budget=budget).run(outer, "t")
    assert report.violation is not None
    assert report.violation["rule"] == "max_tool_calls"
    assert spent(budget, "tool_calls") == 5


def test_a_replay_spends_nothing(budget: SharedBudget) -> None:
    """What was spent when it was recorded is not spent again."""
    orchestrator = Orchestrator(budget=budget)
    first = orchestrator.run(agent, "t")
    recording = Recording.from_records(orchestrator.store.read(first.execution_id))
    before = dict(budget.totals())
    for _ in range(5):
        assert orchestrator.replay(agent, "t", recording).status == "SUCCESS"
    assert dict(budget.totals()) == before


def test_a_resume_pays_only_for_what_is_new(budget: SharedBudget) -> None:
    """The served part of a resumed run was paid for by the first leg."""

    class Holds:
        def __repr__(self) -> str:
            return "Holds()"

        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall) -> Ask | None:
            return Ask(rule="b", reason="b?") if call.arguments["key"] == "b" else None

    orchestrator = Orchestrator(Holds(), budget=budget)
    first = orchestrator.run(agent, "t")
    assert first.status == "SUSPENDED"
    assert (spent(budget, "tool_calls"), spent(budget, "tokens")) == (1, 15)
    assert all(amounts.held == 0 for amounts in budget.totals().values())
    orchestrator.approve(first.approvals[0]["id"], by=Principal(id="alice"))
    assert orchestrator.resume(first.execution_id, agent).status == "SUCCESS"
    assert (spent(budget, "tool_calls"), spent(budget, "tokens")) == (2, 15)


def test_a_call_that_policies_hold_or_deny_costs_nothing(budget: SharedBudget) -> None:
    """Judged first, reserved after."""

    class Asks:
        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall) -> Ask:
            return Ask(rule="x", reason="x?")

    answered = Orchestrator(Asks(), budget=budget, approver=lambda request: Approve(by=Principal(id="a")))
    assert answered.run(lambda task: fetch("a"), "t").status == "SUCCESS"
    assert Orchestrator(Asks(), budget=budget).run(lambda task: fetch("a"), "t").status == "SUSPENDED"
    assert spent(budget, "tool_calls") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_store_that_was_carried_over_a_fork_refuses_to_write(tmp_path: Any) -> None:
    """What SQLite writes through an inherited connection is lost in silence."""
    store = SQLiteStore(tmp_path / "oao.db")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.claim("r")
        except StoreError as error:
            code = 0 if "forked" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.close()
