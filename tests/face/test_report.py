"""`--oao-report`, junit and report logs: every field of the schema, the same with and without xdist."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

TESTS = """
def test_good():
    agent("order 1")

@pytest.mark.oao(deny=["refund"])
def test_bad():
    agent("order 2")

def test_plain():
    pass

def test_two_runs(oao):
    lookup("1")
    with oao.run("second"):
        lookup("2")

@pytest.mark.oao(deny=["refund"])
def test_expected(oao):
    with oao.expect_violation("tools.deny"):
        refund("1", 2)
"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Counts(_Strict):
    steps: int
    model_calls: int
    tool_calls: int
    tokens: int
    cost_usd: float | None


class _Session(_Strict):
    policy: str
    record: str
    live: list[str]
    order: str
    started: str
    duration_s: float
    exit: int
    versions: dict[str, str]


class _Run(_Counts):
    name: str
    status: str
    decisions: dict[str, int]


class _Violation(_Strict):
    run: str
    rule: str
    step: int | None
    reason: str
    expected: bool


class _Waived(_Strict):
    rule: str
    why: str


class _Replay(_Strict):
    status: str
    step: int | None
    kind: str | None
    message: str | None
    changes: str | None


class _Recording(_Strict):
    path: str
    exists: bool
    recorded: str | None
    age_days: int | None


class _Strength(_Strict):
    caught: int
    total: int
    missed: list[str]


class _Test(_Counts):
    nodeid: str
    outcome: str
    duration_s: float
    tokens_estimated: bool
    policy: str
    runs: list[_Run]
    violations: list[_Violation]
    waived: list[_Waived]
    replay: _Replay
    recording: _Recording | None
    strength: _Strength | None
    ungoverned: list[str]
    uncovered: list[str]


class _Totals(_Counts):
    tests: int
    runs: int
    tokens_estimated: bool
    saved_tokens: int
    saved_usd: float | None
    live_usd: float | None
    violations: int
    divergences: int
    recorded: int
    pending: int


class _Report(_Strict):
    schema_: str
    session: _Session
    tests: list[_Test]
    totals: _Totals
    orphans: list[str]
    pending: list[str]


def _read(path: Path) -> _Report:
    """Read a report; a field that is missing, unknown or of another type is an error."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return _Report.model_validate(
        {**{key: value for key, value in found.items() if key != "schema"}, "schema_": found["schema"]}
    )


def _report(shop: Any, *options: str) -> _Report:
    shop.run("--oao-report=out/report.json", *options)
    return _read(shop.path / "out" / "report.json")


def test_the_report_has_every_field_that_it_says(shop: Any) -> None:
    """And no other; in a folder that is made for it."""
    shop.write(test=TESTS)

    report = _report(shop, "--oao-record=once", "--oao-policy=standard")

    assert report.schema_ == "oao-report/1"
    assert (report.session.policy, report.session.record, report.session.exit) == ("standard", "once", 1)
    assert set(report.session.versions) == {"oao", "pytest", "python"}
    tests = {test.nodeid.partition("::")[2]: test for test in report.tests}
    assert set(tests) == {"test_good", "test_bad", "test_two_runs", "test_expected"}
    good, bad, two, expected = (tests[name] for name in ("test_good", "test_bad", "test_two_runs", "test_expected"))
    assert (good.outcome, good.steps, good.model_calls, good.tool_calls, good.tokens) == ("passed", 4, 2, 2, 84)
    assert (good.replay.status, good.recording and good.recording.path) == (
        "recorded",
        "recordings/test_shop/test_good.oao.json",
    )
    assert [run.decisions for run in good.runs] == [{"allow": 4}]
    assert (bad.outcome, bad.policy, bad.recording) == ("failed", "tools.deny", None)
    assert [(one.rule, one.run, one.step, one.expected) for one in bad.violations] == [("tools.deny", "main", 4, False)]
    assert [run.name for run in two.runs] == ["main", "second"]
    assert (expected.outcome, expected.violations[0].expected) == ("passed", True)
    assert (report.totals.tests, report.totals.runs, report.totals.violations, report.totals.recorded) == (4, 5, 1, 3)


def test_a_replay_that_diverges_says_where_and_what(shop: Any) -> None:
    """Step, kind and message; what was saved by those that did not."""
    shop.write(test=TESTS)
    shop.run("--oao-record=once")
    shop.write(('agent("order 1")', 'agent("order 9")'), test=TESTS)

    report = _report(shop)

    tests = {test.nodeid.partition("::")[2]: test for test in report.tests}
    replay = tests["test_good"].replay
    assert (replay.status, replay.step, replay.kind) == ("diverged", 1, "changed")
    assert replay.message is not None
    assert replay.message.startswith("step 1 model gpt-x: user message changed")
    recording = tests["test_good"].recording
    assert recording is not None
    assert recording.age_days == 0
    assert (tests["test_bad"].replay.status, report.totals.divergences) == ("no recording", 1)


def test_strength_orphans_and_pending_are_in_the_report(recorded: Any) -> None:
    """What the summary says too."""
    recorded.write(('f"paid {paid}"', 'f"they paid {paid}"'))
    pending = _report(recorded, "--oao-record=new")
    assert pending.pending == ["recordings/test_shop/test_refund.oao.json.new"]
    assert pending.tests[0].replay.changes is not None
    assert pending.totals.pending == 1

    recorded.write()
    found = _report(recorded, "--oao-mutate").tests[0].strength
    assert found is not None
    assert 0 < found.caught <= found.total

    recorded.write(test="\ndef test_other(): pass\n")
    assert _report(recorded).orphans == ["recordings/test_shop/test_refund.oao.json"]


def test_the_report_is_the_same_with_workers(shop: Any) -> None:
    """But for durations and the time; recorded and replayed."""
    shop.write(test=TESTS)
    shop.run("--oao-record=once")

    def comparable(report: _Report) -> dict[str, Any]:
        found = report.model_dump()
        del found["session"]["started"], found["session"]["duration_s"]
        for test in found["tests"]:
            del test["duration_s"]
        found["tests"].sort(key=lambda test: test["nodeid"])
        return found

    alone = _report(shop, "--oao-policy=strict")
    workers = _report(shop, "--oao-policy=strict", "-p", "xdist", "-n", "2")

    assert comparable(alone) == comparable(workers)
    assert [test.nodeid for test in alone.tests] == [test.nodeid for test in workers.tests]


def test_a_report_that_cannot_be_written_is_a_usage_error(shop: Any) -> None:
    """Not a lost report."""
    (shop.path / "out").write_text("a file")
    result = shop.run("--oao-report=out/report.json", "--oao-record=once")
    assert result.ret != 0
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert "out/report.json cannot be written" in result.stdout.str() + result.stderr.str()


def test_junit_has_the_numbers_as_properties(shop: Any) -> None:
    """Each once; of tests with an agent only; no cost where nobody knows it."""
    shop.write(test=TESTS)
    shop.run("--oao-record=once", "--junitxml=junit.xml", "-o", "junit_family=xunit1")

    cases = {case.get("name"): case for case in ET.parse(shop.path / "junit.xml").iter("testcase")}
    found = [(one.get("name"), one.get("value")) for one in cases["test_good"].iter("property")]
    assert dict(found) == {
        "oao.steps": "4",
        "oao.model_calls": "2",
        "oao.tool_calls": "2",
        "oao.tokens": "84",
        "oao.policy": "ok",
        "oao.violations": "0",
        "oao.replay": "recorded",
    }
    assert len(found) == len(dict(found))
    assert list(cases["test_plain"].iter("property")) == []
    assert {one.get("name"): one.get("value") for one in cases["test_bad"].iter("property")}[
        "oao.policy"
    ] == "tools.deny"


def test_report_logs_carry_the_row(shop: Any) -> None:
    """Of the call of each test in which an agent ran."""
    pytest.importorskip("pytest_reportlog")
    shop.write(test=TESTS)
    shop.run("--oao-record=once", "-p", "pytest_reportlog.plugin", "--report-log=log.jsonl")

    lines = [json.loads(line) for line in (shop.path / "log.jsonl").read_text().splitlines()]
    rows = {line["nodeid"]: line["oao"] for line in lines if line.get("when") == "call" and "oao" in line}
    assert rows["test_shop.py::test_good"]["steps"] == 4
    assert "test_shop.py::test_plain" not in rows
