"""`oao show`: what a run went through beside its calls, and how that looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Journal, Oao

ALLOW = {"verdict": "allow", "rule": "default", "plugin": "oao"}
ASK = {"verdict": "ask", "rule": "sums", "plugin": "file", "source": "policy.toml:4"}
END = {
    "type": "run.finished",
    "status": "SUCCESS",
    "error": None,
    "output": "done",
    "totals": {"steps": 1, "model_calls": 0, "tool_calls": 1, "tokens": 0, "cost_usd": 0.0123},
}
ALICE = {"id": "alice", "roles": ["manager"], "tenant": ""}
HOUR = 3600.0


def call(n: int, name: str = "pay", **fields: Any) -> dict[str, Any]:
    return {"type": "call", "n": n, "kind": "tool", "name": name, "req": {"n": n}, "decision": ALLOW, **fields}


def done(n: int, **fields: Any) -> dict[str, Any]:
    return {"type": "outcome", "n": n, "duration_s": 1.0, "res": "ok", **fields}


def flat(text: str) -> str:
    return " ".join(text.split())


def test_waiting_is_no_running_time_and_answers_are_told(oao: Oao, journal: Journal) -> None:
    """Who approved what, after how long; the run took two seconds, not three hours."""
    question = {"id": "run-1-1", "agent": "a", "tool": "pay", "kind": "tool", "arguments": {"n": 1}}
    journal(
        "run-1",
        {"type": "approval.requested", **question, "rule": "sums", "reason": "large", "at": 1001.5},
        {"type": "run.suspended", "reason": "pay is held", "approvals": ["run-1-1"], "totals": {}, "at": 1002.0},
        {"type": "approval.answered", "id": "run-1-1", "verdict": "approve", "by": ALICE, "note": "called him",
         "at": 1002.0 + 2 * HOUR},
        {"type": "run.resumed", "agent": "a", "policy": [], "at": 1002.0 + 3 * HOUR},
        call(1, decision={**ASK, "verdict": "allow"}, approvals=["run-1-1"], at=1002.0 + 3 * HOUR),
        done(1, at=1003.0 + 3 * HOUR),
        {**END, "at": 1003.0 + 3 * HOUR},
    )  # fmt: skip

    shown = oao("show", "run-1").stdout
    told = flat(shown)

    assert "1.000 ◆ suspended: pay is held" in told
    assert "1.000 → run-1-1 pay: approved by alice (manager) after 2 h 00 min: called him" in told
    assert "1.000 ● resumed; waited 3 h 00 min" in told
    assert "sums: policy.toml:4 approved by alice (manager) after 2 h 00 min: called him" in told
    assert "✔ SUCCESS in 2 s · 1 step · 1 tool call · 0.0123 USD not counted: waited 3 h 00 min for a person" in told
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_an_interruption_and_what_was_made_again_are_told(oao: Oao, journal: Journal) -> None:
    """From the last record to the resumption nobody was at work; another policy is named."""
    journal(
        "run-1",
        {"type": "plan", "policy": ["A"], "limits": {}},
        call(1, effect="idempotent"),
        {"type": "run.resumed", "agent": "a", "policy": ["B"], "at": 1063.0},
        {"type": "again", "n": 1, "at": 1063.0},
        done(1, at=1064.0),
        {**END, "at": 1064.0},
    )

    told = flat(oao("show", "run-1").stdout)

    assert '● resumed; was interrupted for 1 min, under another policy: ["B"]' in told
    assert "it was in doubt after an interruption, and made again" in told
    assert "SUCCESS in 3 s" in told
    assert "not counted: was interrupted for 1 min" in told


def test_a_call_in_doubt_is_marked_with_the_command_that_answers(oao: Oao, journal: Journal) -> None:
    """At the call, and at the end; once it is answered, who said what."""
    held = {"type": "run.suspended", "reason": "in doubt", "approvals": [], "in_doubt": [1], "totals": {}}
    said = {"type": "resolved", "n": 1, "landed": True, "by": ALICE, "note": "seen", "res": "paid"}
    journal("aaaa-1", call(1), held)
    journal("bbbb-1", call(1), held, said, at=2000)

    open_, answered = flat(oao("show", "aaaa-1").stdout), flat(oao("show", "bbbb-1").stdout)

    assert "pay allow in doubt → pay(n=1)" in open_
    assert 'in doubt, #1: pay {"n": 1}' in open_
    assert "oao resolve aaaa-1#1 --landed | --did-not-happen" in open_
    assert "pay allow landed → pay(n=1) ← paid" in answered
    assert "→ call #1 landed, says alice (manager): seen" in answered
    assert "oao resolve" not in answered


def test_nested_runs_stand_where_they_were_started(oao: Oao, journal: Journal) -> None:
    """With their own ids, on the clock of the outer run; one that is gone is named."""
    inside = [{"type": "child", "execution_id": name, "n": 1} for name in ("inner-1", "gone-1")]
    journal("outer-1", call(1, "ask"), *inside, done(1), END)
    journal("inner-1", call(1, "find"), done(1), END, agent="helper", parent="outer-1", at=1002.5)

    lines = [flat(line) for line in oao("show", "outer-1").stdout.splitlines()]

    start = lines.index("2.000 └ run inner-1 helper, success")
    assert lines[start + 1].startswith("3.000 1 tool └ find allow 1 s")
    assert "3.000 └ run gone-1 (not in this store)" in lines
    assert "run outer-1" in lines
    assert "inside outer-1" in flat(oao("show", "inner-1").stdout)
    assert "run outer-1" in flat(oao("show", "last").stdout)


def test_forks_are_told_from_both_ends(oao: Oao, journal: Journal) -> None:
    """Where it comes from and where it parts; the days between the two are nobody's time."""
    journal("old-1", call(1), done(1), END)
    fork = {"forked": {"run": "old-1", "at": 2, "edited": True, "model": "small"}}
    resumed = {"type": "run.resumed", "agent": "a", "policy": [], "at": 90_000.0}
    started = {**call(1), "at": 1002.0}
    journal(
        "new-1", started, {**done(1, edited=True), "at": 1003.0}, resumed, {**END, "at": 90_001.0}, at=89_999, **fork
    )

    told = flat(oao("show", "new-1").stdout)

    assert "fork of old-1, at call #2, whose result was edited, with model small" in told
    assert "● forked here: what is above was served, what is below was made" in told
    assert "pay allow edited" in told
    assert "SUCCESS in 2 s" in told
    assert "not counted" not in told
    assert "forks new-1 success" in flat(oao("show", "old-1").stdout)


def test_bars_show_what_ran_side_by_side(oao: Oao, journal: Journal) -> None:
    """One scale for all: a call that began where another did, and took twice as long."""
    journal(
        "run-1", call(1, "a", at=1001.0), call(2, "b", at=1001.0), done(1, at=1005.0), done(2, at=1009.0),
        call(3, "c", at=1009.0), done(3, at=1011.0), {**END, "at": 1011.0},
    )  # fmt: skip

    lines = oao("show", "run-1", width=100).stdout.splitlines()
    bars = {line.split()[3]: line[line.index("━") :] for line in lines if "━" in line}
    starts = {line.split()[3]: line.index("━") for line in lines if "━" in line}

    assert (len(bars["a"]), len(bars["b"]), len(bars["c"])) == (16, 32, 8)
    assert starts["a"] == starts["b"]
    assert starts["c"] == starts["b"] + 32
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_every_width_is_kept_and_a_pipe_gets_no_colours(oao: Oao, journal: Journal, width: int) -> None:
    """Long names, long notes, long reasons: nothing is wider than the console."""
    long = "an unusually long text that goes on and on " * 6
    journal(
        "run-1",
        call(1, "a_tool_with_quite_a_long_name_indeed", decision={**ASK, "rule": "a-rule-that-nobody-would-write"}),
        done(1, usage={"in": 123456, "out": 1}),
        call(2, "other", parent=1),
        done(2),
        {"type": "run.suspended", "reason": long, "approvals": [], "totals": {}},
        {"type": "approval.answered", "id": "run-1-1", "verdict": "reject", "by": ALICE, "note": long},
    )
    shown = oao("show", "run-1", width=width).stdout
    assert max(map(len, shown.splitlines())) <= width
    assert "\x1b" not in shown
    assert "rejected by alice" in flat(shown)


def test_a_clock_that_goes_back_makes_no_negative_time(oao: Oao, journal: Journal) -> None:
    """Nor a bar that begins before the run."""
    journal("run-1", call(1, at=900.0), done(1, at=901.0), {**END, "at": 902.0})
    shown = oao("show", "run-1").stdout
    assert "SUCCESS in 2 s" in shown
    assert " -" not in shown
