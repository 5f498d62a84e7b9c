"""Programs that generated agents found, kept as they were shrunk."""

from __future__ import annotations

from collections import Counter

import pytest

from oao_hookspecs import Ask, Limits, ToolCall, hookimpl
from pytest_oao.testing import (
    CallModel,
    CallTool,
    InnerRun,
    Nested,
    Pause,
    Program,
    Rules,
    StreamModel,
    Swallow,
    Trial,
    run_program,
)
from pytest_oao.testing.programs import Op

both_kinds = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def in_legs(*ops: Op, rules: Rules, inner: Rules | None = None, is_async: bool = False) -> Trial:
    """Run a program; whenever it is suspended, approve and resume it."""
    trial = Trial(Program(ops), rules, inner_rules=inner, is_async=is_async)
    trial.run()
    for _ in range(5):
        if trial.report.status == "SUSPENDED":
            assert trial.approve()
            trial.resume()
    return trial


def ran(trial: Trial) -> Counter[str]:
    return Counter(body.name for body in trial.executed)


@both_kinds
def test_a_policy_that_undoes_what_an_approval_changed_is_a_denial(is_async: bool) -> None:
    """Not a gate that asks both of them for ever."""
    rules = Rules(hold=("pay",), rewrite=("pay",), answer="edit")
    trial = run_program(Program((CallTool("pay"),)), rules, is_async=is_async)
    assert trial.report.violation is not None
    assert trial.report.violation["rule"] == "policy-error"
    assert trial.executed == []


@both_kinds
def test_a_held_call_whose_body_waited_is_not_asked_about_again(is_async: bool) -> None:
    """Its approval is its own, also where it is entered once more; a second question would leave it in doubt."""
    trial = in_legs(Nested(1), Nested(1), Pause(), rules=Rules(hold=("delegate",)), is_async=is_async)
    assert trial.report.status == "SUCCESS", trial.report.error
    assert [len(report.approvals) for report in trial.reports] == [1, 1, 0]


@both_kinds
def test_two_runs_that_hold_one_call_by_one_rule_ask_once(is_async: bool) -> None:
    """The approval was used for the one policy, so that the other asked again, without end."""
    rules = Rules(hold=("pay",))
    trial = in_legs(InnerRun(1), CallTool("pay"), rules=rules, inner=rules, is_async=is_async)
    assert trial.report.status == "SUCCESS", trial.report.error
    assert ran(trial) == {"pay": 1}
    assert [len(report.approvals) for report in trial.reports] == [0, 0]


def test_rules_of_one_name_that_ask_other_people_are_two_questions() -> None:
    """The answer of the one must not count for the other."""

    class Other:
        name = "other"

        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall) -> Ask:
            return Ask(rule="hold", reason="security must look", approvers=("security",))

    trial = Trial(Program((CallTool("pay"),)), Rules(hold=("pay",)), policies=[Other()])
    assert len(trial.run().approvals) == 2


@both_kinds
def test_an_inner_run_that_began_while_the_outer_one_waits_is_not_over(is_async: bool) -> None:
    """Its calls were refused and it swallowed that: after the approval it must make them, not seem to have ended."""
    ops = (Swallow(1), CallTool("pay"), InnerRun(2), Swallow(1), CallTool("send"))
    trial = in_legs(*ops, rules=Rules(hold=("pay",)), is_async=is_async)
    assert trial.report.status == "SUCCESS", trial.report.error
    assert ran(trial) == {"pay": 1, "send": 1}


@both_kinds
@pytest.mark.parametrize(
    ("inside", "rules"),
    [
        (CallModel((CallTool("pay"), CallTool("send"))), Rules(deny=("send",))),
        (StreamModel(tokens=(4, 4)), Rules(limits=Limits(max_output_tokens=3))),
    ],
)
def test_a_violation_inside_of_a_served_call_is_one_on_replay_too(inside: Op, rules: Rules, is_async: bool) -> None:
    """The body is not entered, so what it would meet there is told by its outcome; it was an ordinary exception."""
    live = run_program(Program((Swallow(2), Nested(1), inside)), rules, is_async=is_async)
    replayed = live.replay()
    assert replayed.executed == []
    for trial in (live, replayed):
        assert trial.report.status == "FAILED"
        assert trial.report.violation is not None
    assert replayed.report.violation is not None
    assert live.report.violation is not None
    assert replayed.report.violation["rule"] == live.report.violation["rule"]


@both_kinds
def test_what_an_inner_run_denied_is_not_counted_on_replay(is_async: bool) -> None:
    """It did not happen, neither when it was recorded nor now."""
    ops = (Nested(2), InnerRun(1), CallTool("send"))
    live = run_program(Program(ops), inner_rules=Rules(deny=("send",)), is_async=is_async)
    replayed = live.replay()
    assert (live.report.status, replayed.report.status) == ("SUCCESS", "SUCCESS")
    assert replayed.report.tool_usage == live.report.tool_usage == {"delegate": 1}
