"""Approvals: what is held, who may answer, what an answer is good for, and how a run goes on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from oao_harness import Orchestrator, SQLiteStore, UsageError, model, tool
from oao_hookspecs import (
    Approve,
    Ask,
    Decision,
    Deny,
    ModelCall,
    Modify,
    Outcome,
    Principal,
    Reject,
    RunView,
    Store,
    ToolCall,
    hookimpl,
)

RAN: list[str] = []
ALICE = Principal(id="alice", roles=("manager",))
BOB = Principal(id="bob", roles=("manager",))
EVE = Principal(id="eve")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()


@tool
def look(account: str) -> int:
    RAN.append(f"look {account}")
    return 100


@tool(effect="once")
def pay(to: str, amount: int = 1) -> str:
    RAN.append(f"pay {to} {amount}")
    return f"paid {to} {amount}"


def agent(task: str) -> str:
    look("mine")
    return pay("bob", amount=5)


class Holds:
    """Asks about `pay`; denies more than 50."""

    name = "holds"

    def __init__(self, **ask: Any) -> None:
        self.ask = Ask(rule="big", reason="a person must look", **ask)

    def __repr__(self) -> str:
        return f"Holds({self.ask.approvers}, {self.ask.needed})"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Decision | None:
        if call.name != "pay":
            return None
        amount = call.arguments.get("amount", 1)
        if isinstance(amount, int) and amount > 50:
            return Deny(rule="too-much", reason=f"{amount} is more than 50")
        return self.ask


def types(store: Store, execution_id: str) -> list[str]:
    return [str(record["type"]) for record in store.read(execution_id)]


def test_a_held_call_suspends_the_run_and_goes_on_once_approved(store: Store) -> None:
    """Nothing of it happens before the answer; after it the finished calls are served and the held one is made."""
    orchestrator = Orchestrator(Holds(), store)
    first = orchestrator.run(agent, "t", principal=EVE)

    assert (first.status, first.error, first.violation) == ("SUSPENDED", None, None)
    assert RAN == ["look mine"]
    question = first.approvals[0]
    assert (question["tool"], question["arguments"], question["rule"]) == ("pay", {"to": "bob", "amount": 5}, "big")
    assert [run.status for run in store.runs()] == ["SUSPENDED"]
    assert orchestrator.resume(first.execution_id, agent).status == "SUSPENDED"

    orchestrator.approve(question["id"], by=ALICE, note="fine")
    last = Orchestrator(Holds(), store).resume(first.execution_id, agent)

    assert (last.status, last.final_output) == ("SUCCESS", "paid bob 5"), last.error
    assert RAN == ["look mine", "pay bob 5"]
    assert (last.tool_calls, last.tool_usage) == (2, {"look": 1, "pay": 1})
    assert [run.status for run in store.runs()] == ["SUCCESS"]
    assert last.state_history == ["INIT", "PLAN", "EXECUTE", "REVIEW", "TERMINATE"]
    journal = [record for record in store.read(first.execution_id) if record["type"] in {"call", "outcome"}]
    assert [(record["type"], record["n"]) for record in journal] == [
        ("call", 1),
        ("outcome", 1),
        ("call", 2),
        ("outcome", 2),
    ]
    assert journal[2]["approvals"] == [question["id"]]
    assert [record["seq"] for record in store.read(first.execution_id)] == list(
        range(1, len(types(store, first.execution_id)) + 1)
    )
    with pytest.raises(UsageError, match="is over"):
        orchestrator.resume(first.execution_id, agent)


def test_async_agents_are_suspended_and_resumed_too() -> None:
    """The same through `run_async` and `resume_async`."""

    async def slow(task: str) -> str:
        look("mine")
        await asyncio.sleep(0)
        return pay("bob")

    async def main() -> None:
        orchestrator = Orchestrator(Holds())
        first = await orchestrator.run_async(slow, "t")
        assert first.status == "SUSPENDED"
        orchestrator.approve(first.approvals[0]["id"], by=ALICE)
        last = await orchestrator.resume_async(first.execution_id, slow)
        assert (last.status, last.final_output) == ("SUCCESS", "paid bob 1"), last.error

    asyncio.run(main())
    assert RAN == ["look mine", "pay bob 1"]


def test_a_rejection_fails_the_run(store: Store) -> None:
    """The held call is a violation then, and says who rejected it and why."""
    orchestrator = Orchestrator(Holds(), store)
    first = orchestrator.run(agent, "t")
    orchestrator.reject(first.approvals[0]["id"], by=ALICE, note="not today")
    last = orchestrator.resume(first.execution_id, agent)

    assert last.status == "FAILED"
    assert last.violation is not None
    assert (last.violation["rule"], last.violation["n"]) == ("big", 2)
    assert "rejected by alice: not today" in (last.error or "")
    assert RAN == ["look mine"]


def test_an_approval_with_other_arguments_is_judged_again(store: Store) -> None:
    """Edited arguments are what runs; where a policy denies them, the approval does not help."""
    orchestrator = Orchestrator(Holds(), store)
    first = orchestrator.run(agent, "t")
    orchestrator.approve(first.approvals[0]["id"], by=ALICE, arguments={"to": "bob", "amount": 2})
    last = orchestrator.resume(first.execution_id, agent)
    assert (last.status, last.final_output) == ("SUCCESS", "paid bob 2"), last.error
    call = [record for record in store.read(first.execution_id) if record["type"] == "call"][-1]
    assert (call["req"], call["given"]) == ({"to": "bob", "amount": 2}, {"to": "bob", "amount": 5})

    RAN.clear()
    second = orchestrator.run(agent, "t")
    orchestrator.approve(second.approvals[0]["id"], by=ALICE, arguments={"to": "bob", "amount": 99})
    last = orchestrator.resume(second.execution_id, agent)
    assert last.violation is not None
    assert last.violation["rule"] == "too-much"
    assert RAN == ["look mine"]


def test_an_approval_is_good_for_one_call(store: Store) -> None:
    """The same call made twice asks twice."""

    def twice(task: str) -> str:
        pay("bob")
        return pay("bob")

    orchestrator = Orchestrator(Holds(), store)
    first = orchestrator.run(twice, "t")
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    second = orchestrator.resume(first.execution_id, twice)
    assert second.status == "SUSPENDED"
    assert RAN == ["pay bob 1"]
    assert second.approvals[0]["id"] != first.approvals[0]["id"]
    orchestrator.approve(second.approvals[0]["id"], by=ALICE)
    last = orchestrator.resume(first.execution_id, twice)
    assert last.status == "SUCCESS", last.error
    assert RAN == ["pay bob 1", "pay bob 1"]


def test_what_changed_since_the_approval_is_asked_about_again(store: Store) -> None:
    """Other arguments, and other policies, are another call."""
    amounts = iter([5, 6])

    def moody(task: str) -> str:
        return pay("bob", amount=next(amounts))

    orchestrator = Orchestrator(Holds(), store)
    first = orchestrator.run(moody, "t")
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    again = orchestrator.resume(first.execution_id, moody)
    assert again.status == "SUSPENDED"
    assert again.approvals[0]["arguments"] == {"to": "bob", "amount": 6}

    other = orchestrator.run(agent, "t")
    orchestrator.approve(other.approvals[0]["id"], by=ALICE)
    stricter = Orchestrator(Holds(needed=1, approvers=("manager",)), store)
    with pytest.raises(UsageError, match="the policy is not the one"):
        stricter.resume(other.execution_id, agent)
    changed = stricter.resume(other.execution_id, agent, allow_changes=True)
    assert changed.status == "SUSPENDED"
    assert "pay bob 5" not in RAN


def test_only_who_is_entitled_may_answer(store: Store) -> None:
    """Roles, four eyes and the run's own principal."""
    orchestrator = Orchestrator(Holds(approvers=("manager",), needed=2), store)
    first = orchestrator.run(agent, "t", principal=ALICE)
    question = first.approvals[0]["id"]
    with pytest.raises(UsageError, match="eve may not answer: roles manager may"):
        orchestrator.approve(question, by=EVE)
    with pytest.raises(UsageError, match="the run acts for alice"):
        orchestrator.approve(question, by=ALICE)
    orchestrator.approve(question, by=BOB)
    with pytest.raises(UsageError, match="bob has answered"):
        orchestrator.approve(question, by=BOB)
    assert orchestrator.resume(first.execution_id, agent).status == "SUSPENDED"
    orchestrator.approve(question, by=Principal(id="carol", roles=("manager", "staff")))
    with pytest.raises(UsageError, match="approved already"):
        orchestrator.approve(question, by=Principal(id="dave", roles=("manager",)))
    assert orchestrator.resume(first.execution_id, agent).status == "SUCCESS"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def test_an_approval_expires_and_a_clock_that_jumps_back_does_not_revive_it(store: Store) -> None:
    """Expired questions cannot be answered; an approval that was not used in time is asked for again."""
    clock = Clock()
    orchestrator = Orchestrator(Holds(expires_s=60.0), store, clock=clock)
    first = orchestrator.run(agent, "t")
    question = first.approvals[0]["id"]
    clock.now += 61
    assert orchestrator.approvals() == []
    with pytest.raises(UsageError, match="expired"):
        orchestrator.approve(question, by=ALICE)
    second = orchestrator.resume(first.execution_id, agent)
    assert second.status == "SUSPENDED"
    assert RAN == ["look mine"]
    orchestrator.approve(second.approvals[0]["id"], by=ALICE)
    clock.now += 61
    third = orchestrator.resume(first.execution_id, agent)
    assert third.status == "SUSPENDED"
    clock.now -= 10_000
    with pytest.raises(UsageError, match=r"no open question|is expired"):
        orchestrator.approve(question, by=ALICE)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (lambda request: Approve(by=ALICE), "SUCCESS"),
        (lambda request: Reject(by=ALICE, note="no"), "FAILED"),
        (lambda request: None, "SUSPENDED"),
        (lambda request: True, "FAILED"),
        (lambda request: 1 / 0, "FAILED"),
        (lambda request: Approve(by=EVE), "SUSPENDED"),
    ],
)
def test_a_callback_answers_at_once(answer: Callable[[Any], Any], status: str) -> None:
    """Only a valid approval by somebody entitled lets the call pass; an error is a rejection."""
    seen: list[Any] = []

    def approver(request: Any) -> Any:
        seen.append(request)
        return answer(request)

    report = Orchestrator(Holds(approvers=("manager",)), approver=approver).run(agent, "t")
    assert report.status == status, report.error
    assert ("pay bob 5" in RAN) == (status == "SUCCESS")
    assert len(seen[0].digest) == 64
    assert seen[0].source.startswith("tests/runtime/test_approvals.py:")


def test_an_async_callback_may_wait() -> None:
    """Awaited in sync and async runs."""

    async def approver(request: Any) -> Approve:
        await asyncio.sleep(0.01)
        return Approve(by=ALICE)

    assert Orchestrator(Holds(), approver=approver).run(agent, "t").status == "SUCCESS"


def test_a_batch_waits_as_a_whole_and_no_sibling_runs_twice(store: Store) -> None:
    """All questions of a batch are asked at once, before any of its calls starts; 20 of 20 runs agree."""

    @model
    def think(prompt: str) -> Mapping[str, Any]:
        RAN.append("think")
        return {
            "tool_calls": [
                {"name": "look", "args": {"account": "a"}, "id": "1"},
                {"name": "pay", "args": {"to": "x"}, "id": "2"},
                {"name": "pay", "args": {"to": "y"}, "id": "3"},
            ]
        }

    def parallel(task: str) -> str:
        calls = think(task)["tool_calls"]
        threads = [
            threading.Thread(target=lambda call=call: (look if call["name"] == "look" else pay)(**call["args"]))
            for call in calls
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return "done"

    for _ in range(20):
        RAN.clear()
        orchestrator = Orchestrator(Holds(), store)
        first = orchestrator.run(parallel, "t")
        assert RAN == ["think"]
        assert [question["arguments"] for question in first.approvals] == [{"to": "x"}, {"to": "y"}]
        for question in first.approvals:
            orchestrator.approve(question["id"], by=ALICE)
        last = orchestrator.resume(first.execution_id, parallel)
        if last.status == "SUSPENDED":
            # Threads of one's own carry no call ids: what they ask about is not what the model proposed.
            for question in last.approvals:
                orchestrator.approve(question["id"], by=ALICE)
            last = orchestrator.resume(first.execution_id, parallel)
        assert sorted(RAN).count("think") == 1


def test_a_run_nested_in_a_tool_suspends_the_whole_tree(store: Store) -> None:
    """The outer run is resumed; what the inner run did before is served there too."""

    def inner_agent(task: str) -> str:
        look("inner")
        return pay("nested")

    inner = Orchestrator(Holds())

    @tool
    def delegate(task: str) -> str:
        report = inner.run(inner_agent, task)
        return str(report.final_output)

    def outer_agent(task: str) -> str:
        look("outer")
        return delegate(task)

    orchestrator = Orchestrator(store=store)
    first = orchestrator.run(outer_agent, "t")
    assert first.status == "SUSPENDED"
    assert RAN == ["look outer", "look inner"]
    (question,) = orchestrator.approvals()
    assert question.execution_id != first.execution_id
    with pytest.raises(UsageError, match="is nested in run"):
        orchestrator.resume(question.execution_id, inner_agent)
    orchestrator.approve(question.id, by=ALICE)
    last = orchestrator.resume(first.execution_id, outer_agent)
    assert (last.status, last.final_output) == ("SUCCESS", "paid nested 1"), last.error
    assert RAN == ["look outer", "look inner", "pay nested 1"]
    assert {run.status for run in store.runs()} == {"SUCCESS"}


def test_a_tool_that_calls_a_held_tool_is_entered_again(store: Store) -> None:
    """The outer call had begun and was waiting: that is no doubt about it."""

    @tool(effect="once")
    def both(task: str) -> str:
        look("inside")
        return pay("inside")

    orchestrator = Orchestrator(Holds(), store)
    first = orchestrator.run(lambda task: both(task), "t", agent_name="x")
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    last = orchestrator.resume(first.execution_id, lambda task: both(task), allow_changes=True)
    assert (last.status, last.final_output) == ("SUCCESS", "paid inside 1"), last.error
    assert RAN == ["look inside", "pay inside 1"]


def test_a_model_call_can_be_held(store: Store) -> None:
    """Ask holds models as well as tools."""

    @model
    def think(prompt: str) -> str:
        RAN.append("think")
        return "hello"

    class Asks:
        @hookimpl
        def oao_decide_model_call(self, call: ModelCall) -> Ask:
            return Ask(rule="expensive", reason="models cost money")

    orchestrator = Orchestrator(Asks(), store)
    first = orchestrator.run(think, "hi")
    assert (first.status, RAN) == ("SUSPENDED", [])
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    last = orchestrator.resume(first.execution_id, think)
    assert (last.status, last.final_output, RAN) == ("SUCCESS", "hello", ["think"]), last.error


def test_the_question_of_a_caught_suspension_is_not_lost(store: Store) -> None:
    """An agent that swallows everything is suspended all the same."""

    def stubborn(task: str) -> str:
        for _ in range(3):
            try:
                return pay("bob")
            except BaseException:
                continue
        return "gave up"

    report = Orchestrator(Holds(), store).run(stubborn, "t")
    assert (report.status, len(report.approvals), RAN) == ("SUSPENDED", 1, [])


def test_a_run_whose_code_changed_is_not_resumed(store: Store) -> None:
    """Other code makes other calls; who means it says so."""
    orchestrator = Orchestrator(Holds(), store)
    first = orchestrator.run(agent, "t")
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)

    def other(task: str) -> str:
        look("mine")
        return pay("bob", amount=5) + "!"

    with pytest.raises(UsageError, match=r"the code of function .*\.other is not the one"):
        orchestrator.resume(first.execution_id, other)
    assert orchestrator.resume(first.execution_id, other, allow_changes=True).final_output == "paid bob 5!"


def test_a_resumed_run_that_does_something_else_first_is_refused(store: Store) -> None:
    """A new call before what was done is served again is a divergence, and does not happen."""
    first_time = [True]

    def moody(task: str) -> str:
        if not first_time.pop() if first_time else True:
            look("other")
        look("mine")
        return pay("bob")

    orchestrator = Orchestrator(Holds(), store)
    first = orchestrator.run(moody, "t")
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    last = orchestrator.resume(first.execution_id, moody)
    assert last.status == "FAILED"
    assert last.violation is not None
    assert last.violation["rule"] == "replay"
    assert RAN == ["look mine"]


def test_policies_remember_the_served_part_of_a_resumed_run(store: Store) -> None:
    """A policy that counts sees each call once, in the resumed run too."""
    counted: list[tuple[str, bool]] = []

    class Counts:
        @hookimpl
        def oao_decide_outcome(self, call: ToolCall, outcome: Outcome, run: RunView) -> None:
            counted.append((call.name, outcome.replayed))

    orchestrator = Orchestrator([Counts(), Holds()], store)
    first = orchestrator.run(agent, "t")
    orchestrator.approve(first.approvals[0]["id"], by=ALICE)
    counted.clear()
    orchestrator.resume(first.execution_id, agent)
    assert counted == [("look", True), ("pay", False)]


def test_a_policy_that_modifies_after_another_judged_is_judged_again() -> None:
    """The first policy is asked about what the second made of the call."""

    class Raises:
        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall) -> Modify | None:
            if call.name != "pay":
                return None
            return Modify(call=ToolCall(name="pay", arguments={"to": "bob", "amount": 51}), rule="raise")

    report = Orchestrator([Holds(), Raises()], approver=lambda request: Approve(by=ALICE)).run(agent, "t")
    assert report.violation is not None
    assert report.violation["rule"] == "too-much"
    assert RAN == ["look mine"]


def test_policies_that_undo_each_other_are_a_denial() -> None:
    """They would modify the call for ever."""

    def flip(a: int, b: int) -> type:
        class Flip:
            @hookimpl
            def oao_decide_tool_call(self, call: ToolCall) -> Modify | None:
                if call.arguments.get("amount") != a:
                    return None
                return Modify(call=ToolCall(name=call.name, arguments={"to": "x", "amount": b}), rule="flip")

        return Flip

    report = Orchestrator([flip(5, 6)(), flip(6, 5)(), flip(5, 6)()]).run(agent, "t")
    report2 = Orchestrator([flip(6, 5)(), flip(5, 6)()]).run(agent, "t")
    assert {report.status, report2.status} == {"FAILED"}
    assert "pay" not in " ".join(RAN)


def test_another_process_approves_and_a_third_resumes(tmp_path: Path) -> None:
    """Suspended, approved and resumed by three processes over one SQLite file; no call is repeated."""
    (tmp_path / "my_agents.py").write_text(
        textwrap.dedent(
            """
            from oao_harness import tool
            from oao_hookspecs import Ask, hookimpl

            @tool
            def look(account: str) -> int:
                open("effects.txt", "a").write("look\\n")
                return 100

            @tool(effect="once")
            def pay(to: str) -> str:
                open("effects.txt", "a").write("pay\\n")
                return f"paid {to}"

            def agent(task: str) -> str:
                look("mine")
                return pay(task)

            class Holds:
                name = "holds"
                def __repr__(self): return "Holds()"
                @hookimpl
                def oao_decide_tool_call(self, call):
                    return Ask(rule="big", reason="look at it") if call.name == "pay" else None
            """
        )
    )
    head = "import sys; sys.path.insert(0, '.'); from my_agents import *; from oao_harness import Orchestrator; "
    head += "from oao_hookspecs import Principal; o = Orchestrator(Holds(), 'sqlite:oao.db'); "

    def python(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", head + code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert python("print(o.run(agent, 'bob', execution_id='r1').status)") == "SUSPENDED"
    python("o.approve('r1', by=Principal(id='alice'))")
    assert python("print(o.resume('r1', agent).final_output)") == "paid bob"
    assert (tmp_path / "effects.txt").read_text() == "look\npay\n"
    store = SQLiteStore(tmp_path / "oao.db")
    assert [run.status for run in store.runs()] == ["SUCCESS"]
    store.close()
