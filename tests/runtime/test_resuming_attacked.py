"""Runs that go on as somebody hostile resumes them: no effect twice, and nothing of what was counted is forgotten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from oao_harness import Orchestrator, tool
from oao_harness.policy.file import FilePolicy
from oao_hookspecs import Ask, Limits, Principal, Store, ToolCall, hookimpl

RAN: list[str] = []
ALICE = Principal(id="alice")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()


@tool(effect="once")
def pay(to: str) -> str:
    RAN.append(f"pay {to}")
    return "paid"


@tool
def look(what: str) -> str:
    RAN.append(f"look {what}")
    return "number 123-45-6789"


@tool
def send(what: str) -> str:
    RAN.append(f"send {what}")
    return "sent"


class Holds:
    name = "holds"

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()

    @hookimpl
    def oao_limits(self) -> Limits:
        return self.limits

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Ask | None:
        return Ask(rule="held", reason="a person must look") if call.name == "pay" else None


def test_a_call_in_doubt_is_not_made_in_other_words(tmp_path: Path) -> None:
    """Killed inside of a `once` tool whose argument is new each time: the resumed run must not call it again."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import os, sys, uuid
            from oao_harness import Orchestrator, tool

            @tool(effect="once")
            def pay(reference: str) -> str:
                with open("effects", "a") as file:
                    file.write("paid ")
                os._exit(9)

            def agent(task: str) -> str:
                return pay(str(uuid.uuid4()))

            orchestrator = Orchestrator(store="sqlite:oao.db")
            if sys.argv[1] == "run":
                orchestrator.run(agent, "t", execution_id="r")
            else:
                print(orchestrator.resume("r", agent).model_dump_json(include={"status", "in_doubt"}))
            """
        ),
        encoding="utf-8",
    )

    def start(what: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(program), what]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=dict(os.environ))

    assert start("run").returncode == 9
    for _ in range(2):
        report = json.loads(start("resume").stdout)
        assert (report["status"], [doubt["id"] for doubt in report["in_doubt"]]) == ("SUSPENDED", ["r#1"])
    assert (tmp_path / "effects").read_text(encoding="utf-8") == "paid "


def test_what_nested_runs_spent_is_spent_after_a_resume(store: Store) -> None:
    """The outer limit counts the calls of a nested run that ended before the run was suspended."""
    inner = Orchestrator()

    @tool
    def delegate(task: str) -> str:
        return str(inner.run(lambda task: look("a") + look("b"), task, agent_name="inner").final_output)

    def outer(task: str) -> str:
        delegate("x")
        pay("bob")
        return look("fifth")

    orchestrator = Orchestrator(Holds(Limits(max_tool_calls=4)), store)
    first = orchestrator.run(outer, "t")
    assert (first.status, first.tool_calls) == ("SUSPENDED", 3)
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    last = orchestrator.resume(first.execution_id, outer)
    assert last.violation is not None
    assert (last.violation["rule"], last.tool_calls) == ("max_tool_calls", 4)
    assert RAN == ["look a", "look b", "pay bob"]


@pytest.mark.parametrize("when", ["", "when = \"result_text.contains('123-45')\""])
@pytest.mark.parametrize("is_nested", [True, False])
def test_labels_of_what_was_read_inside_of_a_tool_outlive_a_resume(store: Store, when: str, is_nested: bool) -> None:
    """By a nested run or by a tool in a tool: what was read stays read, and outbound tools stay denied."""
    policy = FilePolicy.from_text(
        f"""
        [tools]
        ask = ["pay"]
        [[label]]
        name = "personal"
        tools = ["look"]
        {when}
        [[rule]]
        name = "no_exfil"
        tools = ["send"]
        when = "'personal' in run.labels"
        then = "deny"
        """
    )
    inner = Orchestrator()

    @tool
    def delegate(task: str) -> str:
        if is_nested:
            inner.run(look, task, agent_name="inner")
            return "done"
        return look(task)

    def outer(task: str) -> str:
        delegate("x")
        pay("bob")
        return send("all of it")

    orchestrator = Orchestrator(policy, store)
    first = orchestrator.run(outer, "t")
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    last = orchestrator.resume(first.execution_id, outer)
    assert last.violation is not None
    assert last.violation["rule"] == "no_exfil"
    assert RAN == ["look x", "pay bob"]


def test_nested_runs_that_start_in_another_order_go_on_with_their_own_journals(store: Store) -> None:
    """Agent and task tell them apart: none does again what the other one did."""
    inner = Orchestrator(Holds())
    orders = iter([("a", "b"), ("b", "a")])

    def inner_agent(task: str) -> str:
        return look(task) if task == "a" else pay(task)

    @tool
    def both(task: str) -> str:
        for one in next(orders):
            thread = threading.Thread(target=inner.run, args=(inner_agent, one))
            thread.start()
            thread.join(10)
        return "both"

    def outer(task: str) -> str:
        return both(task)

    orchestrator = Orchestrator(store=store)
    first = orchestrator.run(outer, "t")
    assert (first.status, RAN) == ("SUSPENDED", ["look a"])
    (question,) = orchestrator.approvals()
    orchestrator.approve(question.id, by=ALICE)
    last = orchestrator.resume(first.execution_id, outer)
    assert (last.status, RAN) == ("SUCCESS", ["look a", "pay b"]), last.error


def test_who_lost_a_nested_run_to_another_process_does_not_end_the_outer_one(store: Store) -> None:
    """Although the agent looks past it: the outer run has failed here, and goes on where the nested one does."""
    inner = Orchestrator()
    steals = iter([True, False])

    @tool
    def stolen(what: str) -> str:
        nested = next(run for run in store.runs() if run.agent_name == "inner")
        if next(steals):
            store.claim(nested.execution_id, over=1)
        return what

    def inner_agent(task: str) -> str:
        stolen("a")
        return send("once")

    @tool
    def delegate(task: str) -> str:
        return f"whatever: {inner.run(inner_agent, task, agent_name='inner').status}"

    def outer(task: str) -> str:
        return delegate(task)

    orchestrator = Orchestrator(store=store)
    first = orchestrator.run(outer, "t")
    assert first.status == "FAILED"
    assert "another writer has the run" in (first.error or "")
    assert RAN == []
    assert not any(record["type"] == "run.finished" for record in store.read(first.execution_id))


def test_what_is_in_doubt_inside_is_in_doubt_outside(store: Store) -> None:
    """A tool that looks past the report of a nested run does not make a success of it."""
    inner = Orchestrator(Holds())

    @tool
    def delegate(task: str) -> str:
        return f"whatever: {inner.run(lambda task: pay(task), 'bob', agent_name='inner').status}"

    def outer(task: str) -> str:
        return delegate(task)

    orchestrator = Orchestrator(store=store)
    first = orchestrator.run(outer, "t")
    (question,) = orchestrator.approvals()
    orchestrator.approve(question.id, by=ALICE)
    nested = list(store.read(question.execution_id))
    last = cast("int", nested[-1]["seq"])
    # Another process began the payment, and nobody heard of it again.
    call = {"n": 1, "kind": "tool", "name": "pay", "req": {"to": "bob"}, "effect": "once"}
    decision = {"verdict": "allow", "rule": "default", "plugin": "oao"}
    record = {"v": 1, "seq": last + 1, "type": "call", "at": nested[-1]["at"], **call, "decision": decision}
    store.append(question.execution_id, store.claim(question.execution_id), cast("Any", record))
    resumed = orchestrator.resume(first.execution_id, outer)
    assert resumed.status == "SUSPENDED"
    (doubt,) = orchestrator.in_doubt()
    assert (doubt.execution_id, doubt.n, doubt.tool) == (question.execution_id, 1, "pay")
    assert RAN == []
