"""`oao approvals`, `approve`, `reject`, `resume`: what a person in a terminal sees, and what they may get wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

AGENTS = """
import oao_harness as oao

@oao.tool(effect="once")
def send(to, amount):
    return f"sent {amount} to {to}"

def agent(task):
    return send(task, 900)
"""
POLICY = """
[tools]
ask = ["send"]
[approvals]
approvers = ["manager"]
needed = 2
"""


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oao: Any) -> str:
    """The id of a run that waits for two managers."""
    monkeypatch.chdir(tmp_path)
    module = f"bank_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(AGENTS, encoding="utf-8")
    (tmp_path / "bank.toml").write_text(POLICY, encoding="utf-8")
    done = oao("run", f"{module}:agent", "bob", "--policy", "bank.toml", "--as", "eve", "--json")
    assert done.exit_code == 3, done.stderr
    report = json.loads(done.stdout)
    assert report["status"] == "SUSPENDED"
    return str(report["execution_id"])


def test_two_people_approve_one_call(oao: Any, held: str) -> None:
    """The list says how far it is, and with which arguments; the run goes on without its agent being named again."""
    assert "pending" in oao("approvals").stdout or "0 of 2" in oao("approvals").stdout
    edit = '{"to": "bob", "amount": 5}'
    assert oao("approve", "last", "--as", "al", "--role", "manager", "--edit", edit).exit_code == 0
    listed = oao("approvals", "--json")
    (question,) = json.loads(listed.stdout)
    assert (question["state"], question["answers"][0]["arguments"]) == ("pending", {"to": "bob", "amount": 5})
    assert "1 of 2" in oao("approvals").stdout
    assert oao("resume", "last").exit_code == 3
    assert oao("approve", held[:8], "--as", "bea", "--role", "manager", "--edit", edit).exit_code == 0
    done = oao("resume", held[:8])
    assert done.exit_code == 0, done.stderr
    assert "sent 5 to bob" in done.stdout
    assert "Nothing waits" in oao("approvals").stdout
    assert "ask, approved" in oao("show", "last", "--decisions").stdout


def test_a_rejected_run_fails_and_says_why(oao: Any, held: str) -> None:
    """Exit code 1, the rule, and the words of who rejected it."""
    assert oao("reject", "last", "--reason", "never heard of bob", "--as", "al", "--role", "manager").exit_code == 0
    done = oao("resume", "last")
    assert done.exit_code == 1
    assert "rejected by al: never heard of bob" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("approve", "zzz", "--role", "manager"), "there is no open question 'zzz'; `oao approvals` lists them"),
        (("approve", "last"), "may not answer: roles manager may"),
        (("approve", "last", "--as", "eve", "--role", "manager"), "the run acts for eve"),
        (("approve", "last", "--role", "manager", "--edit", "{"), "is not JSON"),
        (("approve", "last", "--role", "manager", "--edit", "[1]"), "is no JSON object"),
        (("approve", "last", "--store", "gone.db"), "there is no store at 'gone.db'"),
        (("resume", "zzz"), "no run has an id that starts with 'zzz'"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(oao: Any, held: str, command: Any, said: str) -> None:
    """Exit code 2, no traceback, and the question is still open."""
    done = oao(*command)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    (question,) = json.loads(oao("approvals", "--json").stdout)
    assert (question["state"], question["answers"]) == ("pending", [])
