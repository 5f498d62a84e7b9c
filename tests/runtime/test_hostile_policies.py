"""What hooks may do to the gate, by mistake or on purpose: nothing gets by, nothing is forged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from oao_harness import Orchestrator, PolicyViolation, model, tool
from oao_harness.runtime.judging import require_unchanged
from oao_hookspecs import Ask, CallDecided, CallFinished, Decision, Deny, RunView, ToolCall, hookimpl


class Unprintable(Exception):
    """Raises itself when somebody looks at it."""

    def __str__(self) -> str:
        raise Unprintable

    __repr__ = __str__


_ERRORS: list[Callable[[], BaseException]] = [
    Unprintable,
    asyncio.CancelledError,
    GeneratorExit,
    SystemExit,
    KeyboardInterrupt,
    StopIteration,
    StopAsyncIteration,
    lambda: BaseExceptionGroup("group", [KeyboardInterrupt()]),
]


class _RaisesOnce:
    def __init__(self, error: Callable[[], BaseException]) -> None:
        self._errors = [error]

    def judge(self) -> None:
        if self._errors:
            raise self._errors.pop()


class _Sync(_RaisesOnce):
    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> None:
        self.judge()


class _Async(_RaisesOnce):
    @hookimpl
    async def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> None:
        self.judge()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("policy", [_Sync, _Async])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", _ERRORS)
def test_whatever_a_policy_raises_is_a_denial_that_cannot_be_caught_away(
    policy: type[_RaisesOnce], is_async: bool, error: Callable[[], BaseException]
) -> None:
    """Also what is no Exception, what cannot be printed, and what looks as if the caller was cancelled."""
    ran: list[str] = []

    @tool
    def send() -> None:
        ran.append("send")

    @tool
    async def asend() -> None:
        ran.append("asend")

    def agent(task: str) -> str:
        for _ in range(3):
            try:
                send()
            except BaseException:
                continue
        return "went on"

    async def aagent(task: str) -> str:
        for _ in range(3):
            try:
                await asend()
            except BaseException:
                continue
        return "went on"

    chosen: Callable[..., Any] = aagent if is_async else agent
    report = Orchestrator(policy(error), policy_timeout_s=2).run(chosen, "t")
    assert (report.status, ran) == ("FAILED", [])


def test_a_policy_cannot_change_in_place_what_the_next_policy_judges() -> None:
    """Else the next one judges, and the journal keeps, what is not run."""
    judged: list[object] = []

    class Tidies:
        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> None:
            call.arguments["path"] = "/safe"  # type: ignore[index]

    class Judges:
        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> None:
            judged.append(call.arguments["path"])

    @tool
    def read(path: str) -> str:
        return path

    def agent(task: str) -> str:
        return read("/etc/passwd")

    orchestrator = Orchestrator([Tidies(), Judges()])
    report = orchestrator.run(agent, "t")
    assert "Modify" in (report.error or "")
    assert judged == []
    call = next(record for record in orchestrator.store.read(report.execution_id) if record["type"] == "call")
    assert call["req"] == {"path": "/etc/passwd"}


def test_a_listener_cannot_forge_the_journal() -> None:
    """What it is told is not what is kept."""

    class Forges:
        @hookimpl
        def oao_call_decided(self, event: CallDecided, run: RunView) -> None:
            event.call.request["order"]["amount"] = 1  # type: ignore[index,call-overload]

    class ForgesToo:
        @hookimpl
        def oao_call_finished(self, event: CallFinished, run: RunView) -> None:
            event.outcome.value.append(1)  # type: ignore[union-attr]

    @tool
    def pay(order: dict[str, int]) -> list[int]:
        return [order["amount"]]

    def agent(task: str) -> list[int]:
        return pay({"amount": 1000})

    orchestrator = Orchestrator(plugins=[Forges(), ForgesToo()])
    report = orchestrator.run(agent, "t")
    records = list(orchestrator.store.read(report.execution_id))
    assert [record["req"] for record in records if record["type"] == "call"] == [{"order": {"amount": 1000}}]
    assert [record["res"] for record in records if record["type"] == "outcome"] == [[1000]]


def test_what_runs_is_what_was_judged() -> None:
    """Arguments that change while a slow policy looks at them are refused, and the refusal stays."""
    paid: list[str] = []
    looking = asyncio.Event()
    changed = asyncio.Event()

    class Slow:
        @hookimpl
        async def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Decision | None:
            looking.set()
            await changed.wait()
            return None if call.arguments["to"] == ["bob"] else Deny(rule="payee", reason="unknown")

    @tool
    async def pay(to: list[str]) -> None:
        paid.extend(to)

    async def agent(task: str) -> str:
        to = ["bob"]
        paying = asyncio.create_task(pay(to))
        await looking.wait()
        to[0] = "mallory"
        changed.set()
        await asyncio.gather(paying, return_exceptions=True)
        return "went on"

    report = Orchestrator(Slow()).run(agent, "t")
    assert paid == []
    assert report.violation is not None
    assert report.violation["rule"] == "changed-after-judging"


def test_a_question_about_one_call_of_a_batch_keeps_its_siblings_from_starting() -> None:
    """The whole batch waits for the person who is asked about one call of it."""
    ran: list[str] = []

    class Asks:
        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Ask | None:
            return Ask(rule="approval", reason="pay?") if call.name == "pay" else None

    @model
    def think(prompt: str) -> dict[str, object]:
        return {"tool_calls": [{"name": "mail", "args": {}, "id": "1"}, {"name": "pay", "args": {}, "id": "2"}]}

    @tool
    def mail() -> None:
        ran.append("mail")

    def agent(task: str) -> None:
        think(task)
        mail()

    report = Orchestrator(Asks()).run(agent, "t")
    assert report.status == "SUSPENDED"
    assert [question["tool"] for question in report.approvals] == ["pay"]
    assert ran == []


def test_a_violation_that_a_tool_raises_stays() -> None:
    """`PolicyViolation` is public: a tool may refuse with it, and the agent may not go on."""

    @tool
    def send() -> None:
        raise PolicyViolation("not after six", rule="hours")

    def agent(task: str) -> str:
        try:
            send()
        except BaseException:
            return "went on"
        return "sent"

    report = Orchestrator().run(agent, "t")
    assert report.error == "hours: not after six"


def test_a_value_that_only_looks_equal_is_a_changed_one() -> None:
    """1 and True are equal in Python, and not the same argument."""
    judged = ToolCall(name="pay", arguments={"amounts": [1]})

    require_unchanged(judged, lambda: ToolCall(name="pay", arguments={"amounts": [1]}))
    with pytest.raises(PolicyViolation, match="changed after they were judged"):
        require_unchanged(judged, lambda: ToolCall(name="pay", arguments={"amounts": [True]}))
