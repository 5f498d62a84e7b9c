"""Approvals of unedited LangGraph agents: suspended before a sibling starts, resumed without a call repeated."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from oao_harness import Orchestrator
from oao_hookspecs import Ask, Principal, Store, ToolCall, hookimpl
from tests.adapters.scripted import Scripted, asks, says

RAN: list[str] = []
ALICE = Principal(id="alice")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()


@tool
def look(account: str) -> int:
    """Look at an account."""
    RAN.append(f"look {account}")
    return 100


@tool
def pay(to: str, amount: int = 1) -> str:
    """Pay somebody."""
    RAN.append(f"pay {to} {amount}")
    return f"paid {to} {amount}"


class Holds:
    def __repr__(self) -> str:
        return "Holds()"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Ask | None:
        return Ask(rule="big", reason="a person must look") if call.name == "pay" else None


def make_agent(**kwargs: Any) -> Any:
    script = [
        asks(("look", {"account": "a"})),
        asks(("pay", {"to": "x"}), ("look", {"account": "b"}), ("pay", {"to": "y", "amount": 2})),
        says("done"),
    ]
    model = Scripted(script=script)
    return create_agent(model, [look, pay], **kwargs), model


TASK = {"messages": [("user", "pay them")]}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("checkpointer", [False, True])
def test_a_held_batch_of_an_unedited_agent(store: Store, is_async: bool, checkpointer: bool) -> None:
    """Nothing of the batch starts before all of it is answered; nothing runs twice after."""

    def ask_again(orchestrator: Orchestrator, execution_id: str | None = None) -> Any:
        # A new agent object each time, as in a new process; its checkpointer has forgotten the conversation.
        agent, model = make_agent(checkpointer=InMemorySaver() if checkpointer else None)
        if checkpointer:
            agent = agent.with_config({"configurable": {"thread_id": "1"}})
        if execution_id is None:
            run = orchestrator.run_async(agent, TASK) if is_async else orchestrator.run(agent, TASK)
        elif is_async:
            run = orchestrator.resume_async(execution_id, agent)
        else:
            run = orchestrator.resume(execution_id, agent)
        report = asyncio.run(run) if is_async else run
        return report, model

    orchestrator = Orchestrator(Holds(), store)
    first, _ = ask_again(orchestrator)
    assert first.status == "SUSPENDED", first.error
    assert RAN == ["look a"]
    assert [question["arguments"] for question in first.approvals] == [{"to": "x"}, {"to": "y", "amount": 2}]
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    assert ask_again(orchestrator, first.execution_id)[0].status == "SUSPENDED"
    orchestrator.approve(first.approvals[1]["id"], by=ALICE, arguments={"to": "y", "amount": 1})
    last, model = ask_again(Orchestrator(Holds(), store), first.execution_id)
    assert (last.status, last.error) == ("SUCCESS", None)
    assert sorted(RAN) == ["look a", "look b", "pay x 1", "pay y 1"]
    assert len(model.executed) == 1, "the first two answers were served, the last one was asked for"
    assert (last.model_calls, last.tool_calls) == (3, 4)


def test_a_hundred_halted_batches_give_one_journal() -> None:
    """A batch with a held call is judged before it starts: what is written is no matter of chance."""
    journals = set()
    for _ in range(100):
        orchestrator = Orchestrator(Holds())
        agent, _ = make_agent()
        report = orchestrator.run(agent, TASK)
        records = [
            (record["type"], record.get("n"), record.get("name"), record.get("tool"), str(record.get("req")))
            for record in orchestrator.store.read(report.execution_id)
        ]
        journals.add(str(records))
    assert len(journals) == 1


def test_a_run_suspended_in_one_folder_is_resumed_from_its_file(tmp_path: Path) -> None:
    """Messages as a task come back as messages."""
    from langchain_core.messages import HumanMessage

    url = f"sqlite:{tmp_path}/oao.db"
    agent, _ = make_agent()
    first = Orchestrator(Holds(), url).run(agent, {"messages": [HumanMessage("pay them")]})
    again = Orchestrator(Holds(), url)
    for question in again.approvals():
        again.approve(question.id, by=ALICE)
    agent, model = make_agent()
    last = again.resume(first.execution_id, agent)
    assert last.status == "SUCCESS", last.error
    assert len(model.executed) == 1


def test_a_call_with_more_arguments_than_were_approved_is_asked_about_again() -> None:
    """The id of an approved proposal does not carry arguments that nobody saw; the tool's own default may be added."""
    call = {"type": "tool_call", "name": "pay", "id": "c0_pay"}
    script = [asks(("pay", {"to": "x"}), ("look", {"account": "b"})), says("done")]

    def agent_with(arguments: dict[str, Any]) -> Any:
        def agent(task: str) -> str:
            Scripted(script=script).invoke(task)
            look.invoke({"type": "tool_call", "name": "look", "id": "c1_look", "args": {"account": "b"}})
            return str(pay.invoke({**call, "args": arguments}).content)

        return agent

    for arguments, status in (({"to": "x"}, "SUCCESS"), ({"to": "x", "amount": 9999}, "SUSPENDED")):
        RAN.clear()
        orchestrator = Orchestrator(Holds())
        agent = agent_with(arguments)
        first = orchestrator.run(agent, "t")
        orchestrator.approve(first.approvals[0]["id"], by=ALICE)
        last = orchestrator.resume(first.execution_id, agent, allow_changes=True)
        assert last.status == status, last.error
        assert "pay x 9999" not in RAN
