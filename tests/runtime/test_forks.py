"""A fork: a new run with the beginning of an old one; nothing in that beginning fires again."""

from __future__ import annotations

import pytest

import oao_harness as oao
from oao_harness import Edit, Orchestrator, UsageError
from oao_hookspecs import Ask, Principal, Store, ToolCall, hookimpl
from pytest_oao.testing import ScriptedModel

ALICE = Principal(id="alice")
RAN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


@oao.tool
def find(what: str) -> str:
    RAN.append(f"find {what}")
    return f"found {what}"


@oao.tool
def pay(to: str) -> str:
    RAN.append(f"pay {to}")
    return f"paid {to}"


def agent(task: str) -> str:
    first = find("seat")
    second = pay("bob") if first == "found seat" else pay("nobody")
    return f"{first}, {second}, {find('end')}"


def fork(store: Store, at: int, **more: object) -> tuple[oao.ExecutionReport, str]:
    orchestrator = Orchestrator(store=store)
    first = orchestrator.run(agent, "t")
    assert first.status == "SUCCESS"
    RAN.clear()
    report = orchestrator.fork(first.execution_id, agent, at, **more)  # type: ignore[arg-type]
    return report, first.execution_id


@pytest.mark.parametrize(
    ("at", "ran"),
    [(1, ["find seat", "pay bob", "find end"]), (2, ["pay bob", "find end"]), (3, ["find end"]), (4, [])],
)
def test_only_what_comes_from_the_fork_on_is_made(store: Store, at: int, ran: list[str]) -> None:
    """Every beginning, from none of the run to all of it."""
    report, _ = fork(store, at)

    assert (report.status, report.final_output) == ("SUCCESS", "found seat, paid bob, found end")
    assert ran == RAN


def test_a_fork_knows_where_it_comes_from(store: Store) -> None:
    """The old run is as it was; the new one has its own id, and a row that says of which it is a fork."""
    report, first = fork(store, 3)

    row = next(row for row in store.runs() if row.execution_id == report.execution_id)
    assert (row.forked_from, row.status) == (first, "SUCCESS")
    started = next(iter(store.read(report.execution_id)))
    assert started["forked"] == {"run": first, "at": 3}
    assert [record["type"] for record in store.read(first)].count("run.resumed") == 0


def test_another_result_takes_the_run_elsewhere(store: Store) -> None:
    """The edited call is served, what the agent does with it is new."""
    report, _ = fork(store, 1, edit=Edit("no seats"))

    assert report.final_output == "no seats, paid nobody, found end"
    assert RAN == ["pay nobody", "find end"]
    edited = [record for record in store.read(report.execution_id) if record.get("edited")]
    assert [(record["n"], record["res"]) for record in edited] == [(1, "no seats")]


def test_the_text_of_a_models_answer_can_be_edited(store: Store) -> None:
    """In place of what it said, in whatever form the answer has."""
    model = ScriptedModel(["yes", "again"])

    def asks(task: str) -> str:
        return str(model([{"role": "user", "content": "shall I?"}])["content"])

    orchestrator = Orchestrator(store=store)
    first = orchestrator.run(asks, "t")
    report = orchestrator.fork(first.execution_id, asks, 1, edit=Edit("no"))

    assert (first.final_output, report.final_output) == ("yes", "no")


def test_changed_code_is_what_a_fork_is_for(store: Store) -> None:
    """The agent failed, was mended, and goes on from where it failed."""

    def broken(task: str) -> str:
        found = find("seat")
        raise KeyError(found)

    def mended(task: str) -> str:
        return find("seat") + "!"

    orchestrator = Orchestrator(store=store)
    first = orchestrator.run(broken, "t")
    assert first.status == "FAILED"
    with pytest.raises(UsageError, match=f"oao fork {first.execution_id}"):
        orchestrator.resume(first.execution_id, mended)

    report = orchestrator.fork(first.execution_id, mended, 2)

    assert (report.final_output, RAN) == ("found seat!", ["find seat"])


def test_code_that_asks_for_something_else_diverges_with_the_words_of_a_test(store: Store) -> None:
    """A beginning that cannot be served is not made a second time."""

    def changed(task: str) -> str:
        return find("table")

    orchestrator = Orchestrator(store=store)
    first = orchestrator.run(agent, "t")
    RAN.clear()
    report = orchestrator.fork(first.execution_id, changed, 3)

    assert report.status == "FAILED"
    assert "(replay diverged)" in (report.error or "")
    assert RAN == []


class Holds:
    """A policy that asks about payments."""

    name = "holds"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Ask | None:
        return Ask(rule="held", reason="a person must look") if call.name == "pay" else None


def test_an_approval_is_not_used_twice(store: Store) -> None:
    """It was given for the call of the first run; the fork makes another one."""
    orchestrator = Orchestrator(Holds(), store=store)
    first = orchestrator.run(agent, "t")
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    assert orchestrator.resume(first.execution_id, agent).status == "SUCCESS"
    RAN.clear()

    held = orchestrator.fork(first.execution_id, agent, 2)
    assert (held.status, RAN) == ("SUSPENDED", [])
    served = orchestrator.fork(first.execution_id, agent, 3)
    assert (served.status, RAN) == ("SUCCESS", ["find end"])


def test_nested_runs_of_the_beginning_are_served(store: Store) -> None:
    """Those that had ended, and those that the fork cuts in the middle; pruning the old run takes nothing away."""
    inner = Orchestrator()

    @oao.tool
    def delegate(task: str) -> str:
        return str(inner.run(lambda task: pay(task), task, agent_name="inner").final_output)

    def nested(task: str) -> str:
        direct = inner.run(lambda task: pay("direct") + find("late"), "t", agent_name="direct").final_output
        return f"{delegate('ann')}, {direct}, {find('end')}"

    orchestrator = Orchestrator(store=store)
    first = orchestrator.run(nested, "t")
    assert first.status == "SUCCESS", first.error
    RAN.clear()
    copies = [row.execution_id for row in store.runs() if row.execution_id != first.execution_id]
    report = orchestrator.fork(first.execution_id, nested, 2)
    assert (report.status, report.final_output, RAN) == ("SUCCESS", first.final_output, ["find end"]), report.error
    for old in (first.execution_id, *copies):
        store.delete(old)
    RAN.clear()

    again = orchestrator.fork(report.execution_id, nested, 2)

    assert (again.status, again.tool_calls, RAN) == ("SUCCESS", first.tool_calls, ["find end"]), again.error


def test_a_fork_that_is_interrupted_goes_on_as_a_fork(store: Store) -> None:
    """Its own journal holds the whole beginning before anything happens: nothing of it is made by the second try."""
    stop = [True]

    def stops(task: str) -> str:
        first = find("seat")
        if stop:
            stop.clear()
            raise KeyboardInterrupt
        return first + pay("bob")

    orchestrator = Orchestrator(store=store)
    first = orchestrator.run(agent, "t")
    RAN.clear()
    with pytest.raises(KeyboardInterrupt):
        orchestrator.fork(first.execution_id, stops, 3)
    (fork_,) = [row for row in store.runs() if row.forked_from]
    assert fork_.status == "SUSPENDED"

    report = orchestrator.resume(fork_.execution_id, stops)

    assert (report.final_output, RAN) == ("found seatpaid bob", [])


@pytest.mark.parametrize(("at", "edit"), [(0, None), (5, None), (4, Edit("x"))])
def test_a_call_that_is_not_there_is_said(store: Store, at: int, edit: Edit | None) -> None:
    """And how many there are."""
    with pytest.raises(UsageError, match=f"has no call #{at}; it has 3"):
        fork(store, at, edit=edit)
    assert len(store.runs()) == 1
