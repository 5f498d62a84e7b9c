"""Approvals as somebody hostile uses them: what one person, one policy or one call was given serves no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from oao_harness import Orchestrator, UsageError, model, tool
from oao_hookspecs import Approve, Ask, Principal, Store, ToolCall, hookimpl

RAN: list[object] = []
ALICE = Principal(id="alice", roles=("manager",))
BOB = Principal(id="bob", roles=("manager",))
EVE = Principal(id="eve")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()


@tool(effect="once")
def pay(to: str, amount: Any = 1) -> str:
    RAN.append((to, amount))
    return f"paid {to}"


def agent(task: str) -> str:
    return pay("bob", amount=5)


class Holds:
    def __init__(self, name: str = "holds", **ask: Any) -> None:
        self.name = name
        self.ask = Ask(rule="big", reason="a person must look", **ask)

    def __repr__(self) -> str:
        return f"Holds({self.name}, {self.ask.approvers}, {self.ask.needed})"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Ask | None:
        return self.ask if call.name == "pay" else None


def test_the_second_pair_of_eyes_must_see_what_the_first_edited(store: Store) -> None:
    """Two people who approve different arguments have not agreed on any; nobody alone edits what the other approved."""
    orchestrator = Orchestrator(Holds(needed=2), store)
    first = orchestrator.run(agent, "t")
    question = first.approvals[0]["id"]
    edited = {"to": "bob", "amount": 6}
    orchestrator.approve(question, by=ALICE)
    orchestrator.approve(question, by=BOB, arguments=edited)
    assert orchestrator.resume(first.execution_id, agent).status == "SUSPENDED"
    assert RAN == []

    with pytest.raises(UsageError, match="alice has answered"):
        orchestrator.approve(question, by=ALICE, arguments={"to": "bob", "amount": 5})
    orchestrator.approve(question, by=ALICE, arguments=edited)
    assert orchestrator.resume(first.execution_id, agent).status == "SUCCESS"
    assert RAN == [("bob", 6)]


def test_each_policy_that_asks_has_a_question_of_its_own(store: Store) -> None:
    """Rules of one name in two policies: who may answer the one has not answered the other."""
    orchestrator = Orchestrator([Holds("weak"), Holds("strong", approvers=("manager",))], store)
    first = orchestrator.run(agent, "t")
    weak, strong = first.approvals
    with pytest.raises(UsageError, match="eve may not answer"):
        orchestrator.approve(strong["id"], by=EVE)
    orchestrator.approve(weak["id"], by=EVE)
    assert orchestrator.resume(first.execution_id, agent).status == "SUSPENDED"
    orchestrator.approve(strong["id"], by=ALICE)
    assert orchestrator.resume(first.execution_id, agent).status == "SUCCESS"
    assert RAN == [("bob", 5)]


def test_two_equal_questions_are_answered_at_once() -> None:
    """Two policies that ask the same of the same people end, and the call is made once."""
    asked: list[str] = []

    def approver(request: Any) -> Approve:
        asked.append(request.id)
        assert len(asked) <= 2, "asked for ever"
        return Approve(by=ALICE)

    report = Orchestrator([Holds("one"), Holds("two")], approver=approver).run(agent, "t")
    assert report.status == "SUCCESS", report.error
    assert (len(asked), RAN) == (2, [("bob", 5)])


def test_two_equal_calls_of_one_batch_are_two_questions(store: Store) -> None:
    """Both are asked about before either of them starts, so that no sibling is in flight when the run is suspended."""

    @model
    def think(prompt: str) -> Mapping[str, Any]:
        return {"tool_calls": [{"name": "pay", "args": {"to": "x"}, "id": str(number)} for number in (1, 2)]}

    def batch(task: str) -> None:
        for call in think(task)["tool_calls"]:
            pay(**call["args"])

    orchestrator = Orchestrator(Holds(), store)
    first = orchestrator.run(batch, "t")
    assert (len(first.approvals), RAN) == (2, [])
    for question in first.approvals:
        orchestrator.approve(question["id"], by=ALICE)
    last = orchestrator.resume(first.execution_id, batch)
    assert (last.status, RAN) == ("SUCCESS", [("x", 1), ("x", 1)]), last.error


def test_an_approval_is_for_the_very_value(store: Store) -> None:
    """A table that is written like a number in the digest is not the number that was approved."""
    amounts = iter([1.5, {"$number": "1.5"}])

    def moody(task: str) -> str:
        return pay("bob", amount=next(amounts))

    orchestrator = Orchestrator(Holds(), store)
    first = orchestrator.run(moody, "t")
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    assert orchestrator.resume(first.execution_id, moody).status == "SUSPENDED"
    assert RAN == []
