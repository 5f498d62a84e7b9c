"""A policy file end to end: what the gate makes of its answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

import oao_harness
from oao_harness import FilePolicy, MemoryStore, Orchestrator
from oao_harness.policy.coverage import coverage_of
from oao_hookspecs import Principal

TEXT = """
[tools]
ask = ["pay"]
[[tool]]
name = "look"
max_calls = 2
redact = [{ pattern = 'DE\\d+', with = "[iban]" }]
[[role]]
name = "teller"
agents = ["bank"]
approve = ["pay"]
[[rule]]
name = "from the contacts"
tools = ["send"]
values_from = { to = ["tool:look"] }
"""
RAN: list[str] = []


@oao_harness.tool
def look() -> dict[str, str]:
    return {"Bob": "DE123"}


@oao_harness.tool
def send(to: str) -> str:
    RAN.append(to)
    return f"sent to {to}"


@oao_harness.tool
def pay() -> str:
    RAN.append("paid")
    return "paid"


def run(body: Any, *, roles: tuple[str, ...] = ("teller",), text: str = TEXT) -> tuple[Any, list[Any]]:
    RAN.clear()
    store = MemoryStore()
    report = Orchestrator(policy=FilePolicy.from_text(text), store=store).run(
        lambda task: body(), "x", agent_name="bank", execution_id="r", principal=Principal(id="ann", roles=roles)
    )
    return report, list(store.read("r"))


def test_results_are_redacted_before_anybody_sees_them() -> None:
    """Neither the agent nor the journal; and what was redacted is no source any more."""
    report, records = run(look)
    assert report.final_output == {"Bob": "[iban]"}
    assert "DE123" not in json.dumps(records)
    assert run(lambda: (look(), send("Bob")))[0].status == "SUCCESS"
    report, _ = run(lambda: (look(), send("DE123")))
    assert report.violation["rule"] == "from the contacts"
    assert RAN == []


def test_a_bound_of_a_single_tool_is_kept_by_the_gate() -> None:
    """Two calls, not three."""
    report, _ = run(lambda: (look(), look(), look()))
    assert report.status == "FAILED"
    assert report.tool_usage == {"look": 2}


def test_who_has_no_role_may_not_run_the_agent() -> None:
    """Refused before anything happens."""
    report, _ = run(look, roles=("clerk",))
    assert report.violation["rule"] == "teller"
    assert report.tool_calls == 0


def test_a_held_call_suspends_the_run() -> None:
    """The question names who may answer, the rule and its line; nothing has happened."""
    report, records = run(pay)
    assert report.status == "SUSPENDED"
    assert RAN == []
    asked = json.dumps(records)
    assert "policy.toml:3" in asked
    assert "teller" in asked


@pytest.mark.parametrize("body", [pay, lambda: send("Mallory")], ids=["ask", "deny"])
def test_observing_stops_nothing_and_the_journal_says_what_would_have_been(body: Any) -> None:
    """The tool ran, and coverage counts the stop."""
    text = f'mode = "observe"\n{TEXT}'
    report, records = run(body, roles=(), text=text)

    assert report.status == "SUCCESS"
    assert len(RAN) == 1
    decision = next(record["decision"] for record in records if record["type"] == "call")
    assert decision["verdict"] == "allow"
    assert decision["would"] in {"ask", "deny"}
    assert decision["source"].startswith("policy.toml:")
    assert any(one.stopped for one in coverage_of(FilePolicy.from_text(text), [records]).items)
