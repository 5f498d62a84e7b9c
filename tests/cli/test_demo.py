"""`oao demo`: what it claims is true."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness import Orchestrator, StrictPolicy
from oao_harness.cli.demo_agents import refund_agent, runaway_agent

if TYPE_CHECKING:
    from tests.cli.conftest import Oao


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the demo's folder be inside of the test's."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_the_demo_plays_four_acts(oao: Oao) -> None:
    """A runaway is stopped, a good run succeeds, its replay runs nothing, a changed prompt is noticed; exit code 0."""
    result = oao("demo", "--latency", "0")

    assert result.exit_code == 0
    one, two, three, four = re.split(r"\n[1234]  ", result.stdout)[1:]
    assert "max_tool_calls (budget, call #6)" in one
    assert "It caught the halt 3 times and went on. The halt stayed: the search ran 5" in one
    assert "✔ SUCCESS" in two
    assert "refund R-7731" in " ".join(two.split())
    rows = [line.split() for line in three.splitlines()]
    assert ["model", "calls", "made", "3", "0"] in rows
    assert ["tool", "bodies", "run", "3", "0"] in rows
    assert ["calls", "judged", "by", "the", "policy", "6", "6"] in rows
    assert "The answer is the same, letter by letter." in three
    assert "FAILED step 1 model scripted-model: system prompt changed (replay diverged)" in four
    assert "No model was asked (0 calls)" in four


def test_its_runs_can_be_looked_at_afterwards(oao: Oao) -> None:
    """The last lines name commands that work as they are printed."""
    shown = oao("demo", "--latency", "0").stdout
    (store,) = set(re.findall(r"--store (\S+)", shown))

    listed = json.loads(oao("runs", "--store", store, "--json").stdout)
    assert [(run["agent_name"], run["status"]) for run in listed] == [("refund", "SUCCESS"), ("runaway", "FAILED")]
    assert 'refund(order_id="A-1042", amount=49.99)' in oao("show", "last", "--store", store).stdout
    (recording,) = re.findall(r"read the recording\s+(\S+)", shown)
    assert json.loads(Path(recording).read_text(encoding="utf-8"))["totals"]["steps"] == 6


def test_the_store_may_be_chosen(oao: Oao, folder: Path) -> None:
    """--store keeps the demo's runs where the user wants them."""
    assert oao("demo", "--latency", "0", "--store", "mine.db").exit_code == 0
    assert (folder / "mine.db").exists()


def test_the_demo_fits_the_console(oao: Oao) -> None:
    """Only lines to copy may be wider than 80 columns."""
    lines = oao("demo", "--latency", "0").stdout.splitlines()

    assert [line for line in lines if len(line) > 80 and "oao-demo-" not in line] == []
    assert [line for line in lines if line != line.rstrip()] == []


def test_the_runaway_would_run_on_without_a_halt() -> None:
    """Its body really is what the policy stops: five searches, then three halts that it ignores."""
    ran: Counter[str] = Counter()

    report = Orchestrator(StrictPolicy()).run(runaway_agent(ran), "x")

    assert report.status == "FAILED"
    assert ran == {"tool": 5, "ignored": 3}


def test_the_refund_agent_works_without_oao() -> None:
    """Outside of a run its tools and its model are plain functions."""
    ran: Counter[str] = Counter()

    assert "49.99 EUR" in refund_agent(ran)("broken lamp")
    assert ran == {"model": 3, "tool": 3}
