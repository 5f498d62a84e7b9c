"""The `oao` fixture: answers in a person's place, expected violations, what the run did."""

from __future__ import annotations

from typing import Any

import pytest

AGENT = '''
from typing import Any

import pytest
from oao_harness import tool, PolicyViolation
from oao_hookspecs import Ask, Deny, hookimpl

RAN = []

@tool
def look(account: str) -> int:
    RAN.append("look")
    return 100

@tool
def pay(to: str, amount: int = 1) -> str:
    RAN.append(("pay", to, amount))
    return f"paid {to}"

def agent(task):
    look("mine")
    return pay(task)

class Holds:
    name = "holds"
    @hookimpl
    def oao_decide_tool_call(self, call):
        if call.name == "pay" and call.arguments["to"] == "eve":
            return Deny(rule="no-eve", reason="never eve")
        return Ask(rule="big", reason="look at it", approvers=("manager",)) if call.name == "pay" else None

class OnceOnly:
    """A rule over the calls of a run."""
    name = "one_look"
    @hookimpl
    def oao_decide_tool_call(self, call): return None
    def broken_by(self, calls):
        looks = [name for kind, name, arguments, ok in calls if name == "look"]
        return None if len(looks) <= 1 else f"{len(looks)} looks"
'''


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(my_agent=AGENT)
    pytester.makepyfile("from my_agent import *\n" + test)
    return pytester.runpytest_subprocess("-p", "pytest_oao.plugin", "--oao-record=once", *options)


def test_a_held_call_fails_the_test_and_says_how_to_answer(pytester: pytest.Pytester) -> None:
    """Nobody answers in a test unless the test does."""
    result = run(pytester, "@pytest.mark.oao(policy=Holds())\ndef test_it():\n    agent('bob')\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*tool pay is held for approval: look at it*", "*rule big; *oao.approve()*"])


def test_an_approval_lets_the_call_pass_in_recording_and_in_replay(pytester: pytest.Pytester) -> None:
    """With roles and with other arguments; the recording replays with the same answer and not without it."""
    test = """
import os
@pytest.mark.oao(policy=Holds())
def test_it(oao):
    if not os.environ.get("NOBODY"):
        oao.approve("pay", by="alice", roles=["manager"], arguments={"to": "bob", "amount": 2})
    RAN.clear()
    assert agent("bob") == "paid bob"
    assert oao.run.tools == ["look", "pay"]
    assert oao.run.usage["tool_calls"] == 2
    print("RAN", RAN)
"""
    result = run(pytester, test, "-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*RAN [[]*pay*bob*, 2)]*"])
    again = pytester.runpytest_subprocess("-p", "pytest_oao.plugin", "--oao-record=none", "-s")
    again.assert_outcomes(passed=1)
    again.stdout.fnmatch_lines(["*RAN [[]]*"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOBODY", "1")
        pytester.runpytest_subprocess("-p", "pytest_oao.plugin", "--oao-record=none").assert_outcomes(failed=1)


def test_an_approval_by_somebody_without_the_role_does_not_count(pytester: pytest.Pytester) -> None:
    """The rule wants a manager."""
    test = """
@pytest.mark.oao(policy=Holds())
def test_it(oao):
    oao.approve()
    agent("bob")
"""
    result = run(pytester, test, "--oao-explain")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["an approval of pay does not count: tester may not answer: roles manager may*"])
    result.stdout.fnmatch_lines(["    tool  pay * HELD big", "*tool pay  held big*: look at it"])


TASK = """
import pytest
from oao_harness import tool

@tool
def pay(to: str) -> str:
    return f"paid {to}"
"""

TASK_POLICY = """
[[rule]]
name = "of-the-task"
tools = ["pay"]
values_from = { to = ["task"] }
"""


def test_a_test_says_what_its_agent_is_asked(pytester: pytest.Pytester) -> None:
    """Rules that read the task read that, not the id of the test; without it the failure says what is missing."""
    pytester.makefile(".toml", policy=TASK_POLICY)
    pytester.makepyfile(
        TASK
        + """
def test_said(oao):
    oao.task("Pay Bob.")
    assert pay("bob") == "paid bob"

@pytest.mark.parametrize("to", ["bob"])
def test_not_said(to):
    pay(to)

def test_too_late(oao):
    with oao.expect_violation("of-the-task"):
        pay("bob")
    with pytest.raises(pytest.UsageError, match="before the agent runs"):
        oao.task("Pay Bob.")
"""
    )
    options = ("-p", "pytest_oao.plugin", "--oao-record=once", "--oao-policy=policy.toml")
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*'bob' does not occur in task", "*say it before the agent runs: oao.task(...)"])


def test_an_expected_violation_passes_the_test(pytester: pytest.Pytester) -> None:
    """By name or glob, raised or swallowed; another rule, and none at all, fail it."""
    test = """
@pytest.mark.oao(policy=Holds())
@pytest.mark.parametrize("rule", ["no-eve", "no-*", "*"])
def test_right(oao, rule):
    with oao.expect_violation(rule) as violation:
        agent("eve")
    assert (violation.rule, violation.reason) == ("no-eve", "never eve")

@pytest.mark.oao(policy=Holds())
def test_swallowed(oao):
    with oao.expect_violation():
        try:
            agent("eve")
        except BaseException:
            pass

@pytest.mark.oao(policy=Holds())
def test_other_rule(oao):
    with oao.expect_violation("max_steps"):
        agent("eve")

@pytest.mark.oao(policy=Holds())
def test_none(oao):
    with oao.expect_violation():
        look("x")

@pytest.mark.oao(policy=Holds())
def test_own_error(oao):
    with oao.expect_violation():
        raise KeyError("x")
"""
    result = run(pytester, test)
    result.assert_outcomes(passed=4, failed=3)
    result.stdout.fnmatch_lines(
        ["*expected a violation of 'max_steps', found no-eve: never eve*", "*no rule was broken; expected '[*]'*"]
    )
    pytester.runpytest_subprocess("-p", "pytest_oao.plugin", "-k", "right or swallowed").assert_outcomes(passed=4)


def test_a_run_obeys_the_rules_of_the_policies_in_force(pytester: pytest.Pytester) -> None:
    """By name, or a rule object; an unknown name says which there are."""
    test = """
@pytest.mark.oao(policy=OnceOnly())
def test_good(oao):
    look("a")
    assert oao.run.obeys("one_look")

@pytest.mark.oao(policy=OnceOnly())
def test_bad(oao):
    look("a"); look("b")
    assert oao.run.obeys(OnceOnly())

@pytest.mark.oao(policy=OnceOnly())
def test_unknown(oao):
    look("a")
    oao.run.obeys("nothing")
"""
    result = run(pytester, test)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*breaks 'one_look': 2 looks*", "*has a sequence rule 'nothing'; known: one_look*"])


def test_the_fixture_needs_a_governed_test(pytester: pytest.Pytester) -> None:
    """Without an option or a marker there is no run to speak of."""
    pytester.makepyfile("def test_it(oao): pass\n")
    result = pytester.runpytest_subprocess("-p", "pytest_oao.plugin")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the fixture `oao` needs a governed test*"])
    result.stdout.no_fnmatch_line("*plugin.py*")


def test_a_question_before_any_call_points_at_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    """The reason, and no line of oao's own code."""
    pytester.makepyfile("def test_it(oao):\n    assert oao.run.called('refund')\n")
    result = pytester.runpytest_subprocess("-p", "pytest_oao.plugin", "--oao-policy=observe")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*LookupError: no agent has run in this test yet*"])
    result.stdout.no_fnmatch_line("*runs.py*")
    result.stdout.no_fnmatch_line("*raised in repr*")


POLICY = """
[tools]
allow = ["look", "pay"]
[[rule]]
name = "big"
tools = ["pay"]
when = "has(args.amount) && args.amount > 50"
then = "deny"
[[sequence]]
name = "one_look"
at_most = 1
of = ["look"]
"""


@pytest.mark.parametrize("options", [(), ("-p", "xdist", "-n", "2")])
def test_the_summary_says_which_rules_were_used_and_explains(pytester: pytest.Pytester, options: Any) -> None:
    """One line for the policy file, with and without xdist; every decision on request."""
    pytester.makefile(".toml", bank=POLICY)
    test = """
def test_one(oao):
    agent("bob")
    assert oao.run.obeys("one_look")
def test_two():
    look("x")
"""
    result = run(pytester, test, "--oao-policy=bank.toml", "--oao-explain", *options)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "bank.toml: 3 of 4 rules matched; never (line): big (3)",
            "*oao decisions*",
            "*test_one*",
            "*1 tool look  allow *(bank.toml:*) by bank*",
        ]
    )


def test_a_policy_file_that_is_wrong_stops_the_session(pytester: pytest.Pytester) -> None:
    """With file and line, before any test runs."""
    pytester.makefile(".toml", bank=POLICY.replace("then =", "than ="))
    result = run(pytester, "def test_one():\n    agent('bob')\n", "--oao-policy=bank.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*oao: bank.toml:7: *'big'*unknown key 'than'; did you mean 'then'?*"])


def test_an_expected_violation_hides_no_other_failure(pytester: pytest.Pytester) -> None:
    """A failed assert of the block, and a rule that was broken before it, still fail the test."""
    result = run(
        pytester,
        """
@pytest.mark.oao(policy=Holds())
def test_assert(oao):
    with oao.expect_violation("no-eve"):
        try:
            agent("eve")
        except BaseException:
            pass
        assert RAN == ["never"]

@pytest.mark.oao(policy=Holds())
def test_before(oao):
    try:
        agent("eve")
    except BaseException:
        pass
    with oao.expect_violation("no-eve"):
        pass
""",
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*AssertionError*"])
    result.stdout.fnmatch_lines(["*no-eve*"])


def test_an_expected_violation_that_comes_earlier_than_recorded_diverges(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls that were recorded before it are missing, whatever the test expects."""
    test = """
import os

@pytest.mark.oao(policy=Holds())
def test_it(oao):
    with oao.expect_violation("no-eve"):
        if not os.environ.get("EARLY"):
            look("mine")
        pay("eve")
"""
    run(pytester, test).assert_outcomes(passed=1)
    result = run(pytester, test)
    result.assert_outcomes(passed=1)
    monkeypatch.setenv("EARLY", "1")
    run(pytester, test).assert_outcomes(failed=1)


def test_a_test_says_who_the_agent_acts_for(pytester: pytest.Pytester) -> None:
    """A rule about roles lets the teller pass, and nobody else."""
    pytester.makefile(".toml", bank='[[role]]\nname = "teller"\ntools = ["pay"]\n')
    test = """
def test_teller(oao):
    oao.act_as("tim", ["teller"])
    agent("bob")

def test_nobody(oao):
    with oao.expect_violation():
        agent("bob")

def test_too_late(oao):
    look("x")
    oao.act_as("tim", ["teller"])
"""
    result = run(pytester, test, "--oao-policy=bank.toml")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*the run has begun for nobody*"])


def test_a_long_node_id_is_cut_at_a_name(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 80 columns the table says the module, or the class and the test: nothing is cut in the middle of a word."""
    monkeypatch.setenv("COLUMNS", "80")
    body = "import oao_harness\n\n@oao_harness.tool\ndef look(x):\n    return x\n\n"
    body += "def test_one():\n    look(1)\n\nclass TestOther:\n    def test_of_customers(self):\n        look(2)\n"
    folder = pytester.mkdir("a_rather_long_folder")
    (folder / "test_shop.py").write_text(body, encoding="utf-8")
    result = pytester.runpytest_subprocess("-p", "pytest_oao.plugin", "--oao-policy=observe", "--oao-record=once")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines_random(["test_shop.py::test_one *", "TestOther::test_of_customers *"])
