"""`oao show`: one run from its journal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Journal, Oao

ALLOW = {"verdict": "allow", "rule": "default", "plugin": "oao"}
TOOL = {"type": "call", "n": 1, "kind": "tool", "name": "refund", "req": {"order": "A-1", "amount": 5}}
END = {
    "type": "run.finished",
    "status": "SUCCESS",
    "error": None,
    "output": "done",
    "totals": {"steps": 1, "model_calls": 0, "tool_calls": 1, "tokens": 0},
}


def test_a_run_is_told_in_the_order_of_its_journal(oao: Oao, journal: Journal) -> None:
    """States, framework steps and calls stand where they happened, with what was asked and answered."""
    journal(
        "run-1",
        {
            "type": "plan",
            "policy": ["StrictPolicy(x=1)"],
            "limits": {"max_steps": 10, "max_cost_usd": 0.5, "timeout_s": 30.0},
        },
        {"type": "state", "state": "EXECUTE"},
        {"type": "step", "index": 1, "name": "tools"},
        {**TOOL, "decision": ALLOW},
        {"type": "outcome", "n": 1, "duration_s": 0.0123, "res": {"id": "R-7"}},
        {"type": "state", "state": "TERMINATE"},
        END,
    )

    lines = oao("show", "run-1").stdout.splitlines()

    assert oao("show").stdout.splitlines() == lines
    assert " run     run-1" in lines
    assert " policy  StrictPolicy: at most 10 steps, 0.5 USD, 30 s" in lines
    told = [" ".join(line.split()) for line in lines]
    order = [
        told.index("0.000 INIT"),
        told.index("2.000 EXECUTE"),
        told.index("3.000 step 1 tools"),
        told.index("4.000 1 tool refund allow 12 ms"),
        told.index('→ refund(order="A-1", amount=5)'),
        told.index('← {"id": "R-7"}'),
        told.index("6.000 TERMINATE"),
        told.index("✔ SUCCESS in 7 s · 1 step · 1 tool call"),
        told.index("done"),
    ]
    assert order == sorted(order)


def test_what_a_langchain_model_answered_is_read_like_any_other(oao: Oao, journal: Journal) -> None:
    """Its message stands beside its usage: the calls it asks for are shown, or what it said; never the JSON."""
    call = {"type": "call", "kind": "model", "name": "m", "decision": ALLOW, "req": {"messages": []}}
    asks = {"role": "assistant", "content": "", "calls": [{"id": "c1", "name": "find", "args": {"q": "x"}}]}
    says = {"role": "assistant", "content": "It is 12 🎉"}
    journal(
        "run-1",
        {**call, "n": 1},
        {"type": "outcome", "n": 1, "res": {"message": asks, "usual": {"in": 1, "out": 1}}},
        {**call, "n": 2},
        {"type": "outcome", "n": 2, "res": {"message": says, "usual": {"in": 1, "out": 1}}},
    )

    shown = oao("show", "run-1").stdout

    assert '← asks for find(q="x")\n' in shown
    assert "← It is 12 🎉\n" in shown


def test_a_model_call_shows_the_newest_message_and_what_it_asks_for(oao: Oao, journal: Journal) -> None:
    """The request is the last message; an answer with tool calls names them; estimated tokens are marked."""
    journal(
        "run-1",
        {
            "type": "call",
            "n": 1,
            "kind": "model",
            "name": "model-x",
            "decision": ALLOW,
            "req": {"messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "help\n me"}]},
        },
        {
            "type": "outcome",
            "n": 1,
            "duration_s": 1.5,
            "usage": {"in": 1000, "out": 20, "estimated": True},
            "res": {"content": "", "tool_calls": [{"name": "find", "args": {"q": "x"}, "id": "1"}]},
        },
    )

    shown = oao("show", "run-1").stdout

    assert "→ user: help me" in shown
    assert '← asks for find(q="x")' in shown
    assert "~1,020  1.50 s" in shown


def test_retries_modifications_and_errors_are_shown(oao: Oao, journal: Journal) -> None:
    """What a policy changed, each failed try, and how the call failed."""
    journal(
        "run-1",
        {**TOOL, "decision": {"verdict": "modify", "rule": "cap", "plugin": "p"}, "given": {"amount": 500}},
        {"type": "retry", "n": 1, "attempt": 1, "delay_s": 1.0, "error": "TimeoutError: slow"},
        {"type": "outcome", "n": 1, "duration_s": 2.0, "error": {"type": "a.b:BankError", "message": "closed"}},
        END,
    )

    shown = oao("show", "run-1").stdout

    assert "modify cap" in shown
    assert "modified; the agent asked for refund(amount=500)" in shown
    assert "try 1 failed, next after 1 s: TimeoutError: slow" in shown
    assert "failed, 2 s" in shown
    assert "← BankError: closed" in shown


def test_a_violation_is_shown_at_its_call_and_at_the_end(oao: Oao, journal: Journal) -> None:
    """The first line of the reason stands below the refused call, all of it at the end."""
    journal(
        "run-1",
        {**TOOL, "decision": {"verdict": "deny", "rule": "tools.deny", "plugin": "ToolPolicy"}},
        {"type": "violation", "n": 1, "rule": "tools.deny", "plugin": "ToolPolicy", "reason": "not this one\nmore"},
        {**END, "status": "FAILED", "error": "tools.deny: not this one"},
    )

    shown = oao("show", "run-1").stdout

    assert "deny tools.deny" in shown
    assert "✘ not this one\n" in shown
    assert "tools.deny (ToolPolicy, call #1): not this one\n more\n" in shown


def test_a_run_without_an_end_says_so(oao: Oao, journal: Journal) -> None:
    """A run that is open, or whose process died, is RUNNING, and its cut-off call has no outcome."""
    journal("run-1", {**TOOL, "decision": ALLOW})

    shown = oao("show", "last").stdout

    assert "● RUNNING" in shown
    assert "no outcome" in shown
    assert "no end was journaled" in shown


def test_an_id_may_be_shortened(oao: Oao, journal: Journal) -> None:
    """A unique start of an id, or `last`, names a run; an exact id wins over longer ones."""
    journal("abc-1", END, at=1000)
    journal("abd-2", END, at=2000)
    journal("abd-22", END, at=1500)

    assert " run     abc-1\n" in oao("show", "abc").stdout
    assert " run     abd-2\n" in oao("show", "last").stdout
    assert " run     abd-2\n" in oao("show", "abd-2").stdout


def test_an_ambiguous_start_lists_what_it_may_mean(oao: Oao, journal: Journal) -> None:
    """Where several ids begin alike, all of them are shown with agent and status."""
    journal("abc-1", END)
    journal("abd-2", END, agent="other")

    result = oao("show", "ab")

    assert result.exit_code == 2
    assert result.stderr.startswith("error: 'ab' is the start of 2 ids; type more of it\n")
    assert "  abd-2  other  SUCCESS" in result.stderr
    assert "  abc-1  support  SUCCESS" in result.stderr


def test_an_unknown_id_lists_the_most_recent_ones(oao: Oao, journal: Journal) -> None:
    """The five newest runs, and how many more there are."""
    for n in range(7):
        journal(f"run-{n}", END, at=1000.0 * n)

    result = oao("show", "zzz")

    assert result.exit_code == 2
    assert result.stderr.startswith("error: no run has an id that starts with 'zzz'")
    assert "run-6" in result.stderr
    assert "run-1" not in result.stderr
    assert "and 2 more" in result.stderr


def test_without_any_run_the_error_says_how_to_begin(oao: Oao) -> None:
    """`oao show last` in a fresh folder."""
    result = oao("show", "last")

    assert result.exit_code == 2
    assert "no run is journaled here yet; make one with: oao run module:agent TASK" in result.stderr


def test_json_is_the_journal_line_by_line(oao: Oao, journal: Journal) -> None:
    """--json prints every record as it was written, and not a word more."""
    journal("run-1", {**TOOL, "decision": ALLOW, "name": "grüße"}, END)

    records = [json.loads(line) for line in oao("show", "run-1", "--json").stdout.splitlines()]

    assert [record["type"] for record in records] == ["run.started", "call", "run.finished"]
    assert records[1]["name"] == "grüße"


def test_a_record_of_a_newer_oao_is_passed_over(oao: Oao, journal: Journal) -> None:
    """A type that this version does not know does not keep a person from reading the rest."""
    journal("run-1", {"type": "from.the.future", "n": 1}, END)

    assert "✔ SUCCESS" in oao("show", "run-1").stdout


def test_a_reason_is_not_cut_off_and_an_open_run_says_how_to_go_on(oao: Oao, journal: Journal) -> None:
    """What does not fit into a narrow terminal goes on in the next line."""
    reason = " ".join(f"word{n}" for n in range(20))
    journal("run-1", {**TOOL, "decision": {**ALLOW, "reason": reason}})

    shown = oao("show", "run-1", "--decisions").stdout

    assert [word for word in shown.split() if word.startswith("word")] == reason.split()
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "if it died: oao resume run-1" in shown
    assert "no end was journaled, the last record" in " ".join(shown.split())
