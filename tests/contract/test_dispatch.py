"""Deciding hooks fail closed, observing hooks fail open, whatever a plugin does."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from oao_harness import ConfigError, Orchestrator, PolicyViolation, tool
from oao_hookspecs import Allow, CallFinished, Deny, Modify, ToolCall, hookimpl

RAN: list[str] = []


@tool
def pay(amount: int) -> str:
    RAN.append(f"paid {amount}")
    return f"paid {amount}"


def agent(task: object) -> str:
    return pay(1)


async def async_agent(task: object) -> str:
    return pay(1)


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


class Answering:
    """A policy that answers what it is told to."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked = 0

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> object:
        self.asked += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class AsyncAnswering(Answering):
    @hookimpl
    async def oao_decide_tool_call(self, call: ToolCall) -> object:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


DENY = Deny(rule="no-pay", reason="nobody pays")


@pytest.mark.parametrize("policy_class", [Answering, AsyncAnswering])
@pytest.mark.parametrize(
    ("answer", "rule", "words"),
    [
        (DENY, "no-pay", "nobody pays"),
        (RuntimeError("broken"), "policy-error", "raised RuntimeError: broken"),
        (PolicyViolation("seed style", rule="mine"), "mine", "seed style"),
        (True, "policy-error", "answered True, which is not a decision"),
        ("allow", "policy-error", "answered 'allow'"),
        (Modify(call=ToolCall(name="other", arguments={})), "policy-error", "kind and name must stay the same"),
    ],
)
@pytest.mark.parametrize("driver", ["run", "run_async"])
def test_what_is_not_an_allow_is_a_denial(
    policy_class: type[Answering], answer: object, rule: str, words: str, driver: str
) -> None:
    """A denial, an error, a foreign value: the body does not run, sync or async."""
    orchestrator = Orchestrator(policy=policy_class(answer))
    if driver == "run":
        report = orchestrator.run(agent, "x")
    else:
        report = asyncio.run(orchestrator.run_async(async_agent, "x"))

    assert report.status == "FAILED"
    assert report.violation is not None
    assert report.violation["rule"] == rule
    assert words in report.violation["reason"]
    assert RAN == []


@pytest.mark.parametrize("order", [1, -1])
def test_an_async_none_does_not_hide_a_sync_deny(order: int) -> None:
    """An async policy without an opinion neither ends the asking nor counts as an answer."""
    report = Orchestrator(policy=[AsyncAnswering(None), Answering(DENY)][::order]).run(agent, "x")

    assert report.violation is not None
    assert report.violation["rule"] == "no-pay"
    assert RAN == []


def test_an_allow_does_not_outvote_a_deny() -> None:
    """The strictest answer wins, in any order."""
    for order in (1, -1):
        report = Orchestrator(policy=[Answering(Allow(rule="yes")), Answering(DENY)][::order]).run(agent, "x")
        assert report.status == "FAILED"
    assert RAN == []


def test_policies_are_asked_in_the_order_they_are_given() -> None:
    """Before plugins; pluggy calls the last one registered first, and its documentation leaves that open."""
    asked: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def oao_decide_tool_call(self) -> None:
            asked.append(self.name)

    Orchestrator(policy=[Named("a"), Named("b")], plugins=[Named("c"), Named("d")]).run(agent, "x")

    assert asked == ["a", "b", "c", "d"]


def test_the_first_deny_ends_the_asking() -> None:
    """Policies behind a denial are not asked."""
    later = Answering(None)

    Orchestrator(policy=[Answering(DENY), later]).run(agent, "x")

    assert later.asked == 0


def test_an_async_policy_that_hangs_is_a_denial() -> None:
    """A policy that does not answer in time denies."""

    class Hanging:
        @hookimpl
        async def oao_decide_tool_call(self) -> None:
            await asyncio.Event().wait()

    for run in (
        lambda o: o.run(agent, "x"),
        lambda o: asyncio.run(o.run_async(async_agent, "x")),
    ):
        report = run(Orchestrator(policy=Hanging(), policy_timeout_s=0.05))
        assert report.violation is not None
        assert "timed out" in report.violation["reason"]
    assert RAN == []


def test_a_sync_policy_that_is_too_slow_is_a_denial() -> None:
    """A sync policy cannot be interrupted; its late answer does not count."""

    class Slow:
        @hookimpl
        def oao_decide_tool_call(self) -> Allow:
            end = time.perf_counter() + 0.03
            while time.perf_counter() < end:
                pass
            return Allow()

    report = Orchestrator(policy=Slow(), policy_timeout_s=0.01).run(agent, "x")

    assert report.violation is not None
    assert "took longer than" in report.violation["reason"]
    assert RAN == []


def test_a_modified_call_is_what_runs_and_what_later_policies_see() -> None:
    """Modify replaces the arguments before the body runs."""
    seen: list[object] = []

    class Cap:
        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall) -> Modify:
            return Modify(call=ToolCall(name=call.name, arguments={"amount": 7}), rule="cap")

    class Later:
        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall) -> None:
            seen.append(dict(call.arguments))

    report = Orchestrator(policy=[Cap(), Later()]).run(agent, "x")

    assert report.final_output == "paid 7"
    assert seen
    assert all(arguments == {"amount": 7} for arguments in seen)


def test_a_policy_that_exits_halts_the_run() -> None:
    """`SystemExit` in a policy is not an allow, and the agent cannot try again after catching it."""

    def stubborn(task: object) -> str:
        for _ in range(3):
            try:
                pay(1)
            except BaseException:
                continue
        return "done"

    report = Orchestrator(policy=Answering(SystemExit(3))).run(stubborn, "x")

    assert report.status == "FAILED"
    assert RAN == []


@pytest.mark.parametrize("is_async", [False, True])
def test_a_failing_observer_is_muted_and_the_run_goes_on(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    """An observer that raises is logged once with its name; the run succeeds."""

    class Listener:
        name = "moody"
        calls = 0

        if is_async:

            @hookimpl
            async def oao_call_finished(self, event: CallFinished) -> None:
                Listener.calls += 1
                raise ValueError("no")
        else:

            @hookimpl
            def oao_call_finished(self, event: CallFinished) -> None:
                Listener.calls += 1
                raise ValueError("no")

    def twice(task: object) -> str:
        pay(1)
        return pay(2)

    with caplog.at_level(logging.ERROR, logger="oao"):
        report = Orchestrator(plugins=[Listener()]).run(twice, "x")

    assert report.status == "SUCCESS"
    assert Listener.calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        "listener 'moody' failed in oao_call_finished and is muted; the run goes on"
    ]


def test_observers_hear_every_event_in_order_after_the_journal() -> None:
    """Events come in the order of the journal, and each is already written when it is heard."""
    heard: list[str] = []

    class Listener:
        @hookimpl
        def oao_run_started(self, event: object) -> None:
            heard.append("started")

        @hookimpl
        def oao_state_entered(self, event: object) -> None:
            heard.append(event.state)  # type: ignore[attr-defined]

        @hookimpl
        def oao_call_decided(self, event: object, run: object) -> None:
            last = list(orchestrator.store.read(run.execution_id))[-1]  # type: ignore[attr-defined]
            heard.append(f"decided, journal ends with {last['type']}")

        @hookimpl
        def oao_call_finished(self, event: object, run: object) -> None:
            last = list(orchestrator.store.read(run.execution_id))[-1]  # type: ignore[attr-defined]
            heard.append(f"finished, journal ends with {last['type']}")

        @hookimpl
        def oao_run_finished(self, event: object) -> None:
            heard.append(event.NAME)  # type: ignore[attr-defined]

    orchestrator = Orchestrator(plugins=[Listener()])
    orchestrator.run(agent, "x")

    assert heard == [
        "started",
        "PLAN",
        "EXECUTE",
        "decided, journal ends with call",
        "finished, journal ends with outcome",
        "REVIEW",
        "TERMINATE",
        "EXECUTION_COMPLETE",
    ]


def test_a_wrapper_around_a_deciding_hook_is_refused() -> None:
    """Our loop would not run it; silence would be a hole."""

    class Wrapper:
        @hookimpl(wrapper=True)
        def oao_decide_tool_call(self) -> object:
            return (yield)

    with pytest.raises(ConfigError, match="cannot be wrapped"):
        Orchestrator(plugins=[Wrapper()])


def test_an_unknown_hook_is_an_error_with_a_suggestion() -> None:
    """A typo in a hook's name must not make a policy silent."""

    class Typo:
        @hookimpl
        def oao_decide_tool_cal(self) -> None: ...

    with pytest.raises(ConfigError, match="did you mean 'oao_decide_tool_call'"):
        Orchestrator(policy=Typo())


def test_an_unknown_hook_argument_is_an_error() -> None:
    """A hook may ask for fewer arguments, never for one that does not exist."""

    class Wrong:
        @hookimpl
        def oao_decide_tool_call(self, kall: object) -> None: ...

    with pytest.raises(ConfigError, match="kall"):
        Orchestrator(policy=Wrong())


def test_an_unknown_argument_is_told_with_the_known_ones() -> None:
    """In one line; an argument with a default is the author's own."""

    class Wrong:
        @hookimpl
        def oao_decide_tool_call(self, cal: object) -> None: ...

    class Right:
        @hookimpl
        def oao_decide_tool_call(self, call: object, limit: int = 3) -> None: ...

    with pytest.raises(ConfigError) as caught:
        Orchestrator(policy=Wrong())
    assert str(caught.value) == ("plugin 'Wrong': 'oao_decide_tool_call' has no argument 'cal'; take any of call, run")
    Orchestrator(policy=Right())


def test_a_hook_that_is_not_marked_is_an_error() -> None:
    """It would never be called: a denial that was forgotten must not be an Allow."""

    class Base:
        @hookimpl
        def oao_decide_run(self) -> None: ...

        @hookimpl
        def oao_decide_tool_call(self) -> Deny:
            return Deny(rule="base", reason="no")

    class Forgotten(Base):
        def oao_decide_tool_call(self) -> Deny:
            return Deny(rule="forgotten", reason="no")

    with pytest.raises(ConfigError, match=r"'Forgotten' has 'oao_decide_tool_call' without @oao_hookspecs\.hookimpl"):
        Orchestrator(policy=Forgotten())


def test_a_class_is_no_policy() -> None:
    """The parentheses were forgotten; said at once, not as a denial of every call."""

    class Guard:
        @hookimpl
        def oao_decide_tool_call(self, call: object) -> None: ...

    with pytest.raises(ConfigError, match=r"plugin 'Guard' is a class, .*; give Guard\(\.\.\.\)"):
        Orchestrator(policy=Guard)


def test_an_object_without_hooks_is_no_policy() -> None:
    """A policy that could never be asked is refused."""
    with pytest.raises(ConfigError, match="has no hook of oao"):
        Orchestrator(policy=object())


@pytest.mark.parametrize("hook", ["run", "outcome", "output"])
def test_every_place_of_judgement_can_refuse(hook: str) -> None:
    """The task, an outcome and the output are judged, and a refusal withholds the output."""

    class Refusing:
        if hook == "run":

            @hookimpl
            def oao_decide_run(self) -> Deny:
                return DENY

        elif hook == "outcome":

            @hookimpl
            def oao_decide_outcome(self) -> Deny:
                return DENY

        else:

            @hookimpl
            def oao_decide_output(self, output: object) -> Deny:
                return DENY

    report = Orchestrator(policy=Refusing()).run(agent, "x")

    assert report.status == "FAILED"
    assert report.final_output is None
    assert report.violation is not None
    assert report.violation["rule"] == "no-pay"
    assert ([] if hook == "run" else ["paid 1"]) == RAN
    assert report.state_history == (
        ["INIT", "PLAN", "TERMINATE"] if hook == "run" else ["INIT", "PLAN", "EXECUTE", "REVIEW", "TERMINATE"]
    )
