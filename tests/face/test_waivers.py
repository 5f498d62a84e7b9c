"""`waive=` of the marker: one rule, in one test, for a reason, until a day."""

from __future__ import annotations

import json
from typing import Any

import pytest

POLICY = """
[tools]
deny = ["refund"]
[limits]
max_steps = 10
"""
LATER = "OPS-12, until 2999-01-31"


def _write(shop: Any, marker: str, *changes: tuple[str, str]) -> None:
    shop.pytester.makefile(".toml", shop=POLICY)
    shop.write(
        *changes,
        test=f"\n@pytest.mark.oao({marker})\ndef test_refund():\n    agent('order 123')\n    print('RAN', RAN)\n",
    )


def _rule(shop: Any) -> str:
    """Return the name of the rule that denies the tool, as the summary has it."""
    _write(shop, "")
    result = shop.run("--oao-policy=shop.toml", "--oao-record=once")
    result.assert_outcomes(failed=1)
    found = [line for line in result.outlines if line.startswith("policy violation: ")]
    return found[0].split(": ")[1]


def test_a_waived_rule_lets_the_call_pass_and_is_shown(shop: Any) -> None:
    """In recording and in replay; in the summary with reason and day; in the report."""
    rule = _rule(shop)
    _write(shop, f"waive={{'{rule}': '{LATER}'}}")

    for mode in ("once", "none"):
        result = shop.run("--oao-policy=shop.toml", f"--oao-record={mode}", "--oao-report=report.json")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines([f"waived in test_shop.py::test_refund: {rule}: OPS-12, until 2999-01-31"])
        [row] = json.loads((shop.path / "report.json").read_text())["tests"]
        assert row["waived"] == [{"rule": rule, "why": f"{rule}: OPS-12, until 2999-01-31"}]
        assert row["violations"] == []

    explained = shop.run("--oao-policy=shop.toml", "--oao-explain")
    explained.stdout.fnmatch_lines([f"*tool refund  allow, would deny {rule}*waived (OPS-12, until 2999-01-31)*"])


@pytest.mark.parametrize(("tool", "passes"), [("refund", True), ("re*", True), ("lookup", False)])
def test_a_waiver_may_name_the_tool(shop: Any, tool: str, passes: bool) -> None:
    """Of another one it says nothing."""
    rule = _rule(shop)
    _write(shop, f"waive={{'{rule}:{tool}': '{LATER}'}}")
    outcome = {"passed": 1} if passes else {"failed": 1}
    shop.run("--oao-policy=shop.toml", "--oao-record=once").assert_outcomes(**outcome)


def test_an_expired_waiver_does_not_count_and_says_so(shop: Any) -> None:
    """In the failure, beside the rule."""
    rule = _rule(shop)
    _write(shop, f"waive={{'{rule}': 'OPS-12, until 2020-01-31'}}")

    result = shop.run("--oao-policy=shop.toml", "--oao-record=once")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"policy violation: {rule}: *", f"waiver {rule}: OPS-12, was 2020-01-31"])


@pytest.mark.parametrize(
    ("waiver", "words"),
    [
        ("{'tools.deny': ''}", "*names no reason and day; write 'OPS-12, until 2027-01-31'*"),
        ("{'tools.deny': 'OPS-12'}", "*names no reason and day*"),
        ("{'tools.deny': 'until 2027-01-31'}", "*names no reason and day*"),
        ("{'tools.deny': 'OPS-12, until 2027-02-31'}", "*2027-02-31*"),
        ("'tools.deny'", "*is no mapping; write waive=*"),
        ("{'max_steps': 'OPS-12, until 2999-01-31'}", "*max_steps*cannot be waived*"),
        ("{'tools.deny:': 'OPS-12, until 2999-01-31'}", "*tools.deny:*"),
        ("{'*': 'OPS-12, until 2999-01-31'}", "*name one rule*"),
        ("{'max_*': 'OPS-12, until 2999-01-31'}", "*name one rule*"),
    ],
)
def test_a_wrong_waiver_is_a_usage_error(shop: Any, waiver: str, words: str) -> None:
    """It names the test and how to write it."""
    _write(shop, f"waive={waiver}")

    result = shop.run("--oao-policy=shop.toml")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_refund: @pytest.mark.oao: *"])
    result.stderr.fnmatch_lines([words])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_an_error_of_a_policy_cannot_be_waived(shop: Any) -> None:
    """Nobody knows what it would have said."""
    (shop.path / "rules.py").write_text(
        "from oao_hookspecs import hookimpl\n"
        "class Broken:\n    name = 'broken'\n    @hookimpl\n    def oao_decide_tool_call(self, call): return 1 / 0\n"
        "POLICY = Broken()\n"
    )
    shop.pytester.makeini("[pytest]\npythonpath = .\n")
    _write(shop, f"waive={{'policy-error': '{LATER}'}}")
    result = shop.run("--oao-record=once", "--oao-policy=rules:POLICY")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["policy violation: *ZeroDivisionError*"])
