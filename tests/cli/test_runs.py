"""`oao runs`: the list of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Journal, Oao

TOTALS = {"steps": 4, "model_calls": 1, "tool_calls": 3, "tokens": 1234}


def finished(status: str) -> dict[str, object]:
    """Return the last record of a run."""
    return {"type": "run.finished", "status": status, "error": None, "output": None, "totals": TOTALS}


def test_runs_are_listed_newest_first(oao: Oao, journal: Journal) -> None:
    """Id, agent, status, steps, tools, tokens and duration; a run without an end is RUNNING."""
    journal("aaaa1111-x", finished("SUCCESS"), at=1000)
    journal("bbbb2222-x", finished("FAILED"), at=2000, agent="refund")
    journal("cccc3333-x", at=3000)

    lines = oao("runs").stdout.splitlines()

    assert lines[1].split()[:4] == ["cccc3333", "support", "●", "RUNNING"]
    assert lines[2].split()[:7] == ["bbbb2222", "refund", "✘", "FAILED", "4", "3", "1,234"]
    assert lines[3].split()[:4] == ["aaaa1111", "support", "✔", "SUCCESS"]
    assert lines[3].endswith(" 1 s")


def test_the_limit_is_kept_and_said(oao: Oao, journal: Journal) -> None:
    """--limit shows the newest ones and says that there are more."""
    for n in range(3):
        journal(f"run-{n}", finished("SUCCESS"), at=1000.0 * n)

    shown = oao("runs", "--limit", "2").stdout

    assert "run-2" in shown
    assert "run-0" not in shown
    assert "the newest 2 runs; --limit N shows more" in shown
    assert oao("runs", "--limit", "0").exit_code == 2


def test_json_is_a_list_of_runs(oao: Oao, journal: Journal) -> None:
    """--json has the full ids and plain numbers."""
    journal("aaaa1111-x", finished("SUCCESS"))

    (run,) = json.loads(oao("runs", "--json").stdout)

    assert (run["execution_id"], run["status"], run["totals"]) == ("aaaa1111-x", "SUCCESS", TOTALS)


def test_an_empty_store_gets_a_hint(oao: Oao, folder: Path) -> None:
    """Where nothing was run yet, the list says how to begin, and reading makes no file."""
    result = oao("runs")

    assert result.exit_code == 0
    assert "oao run module:agent TASK" in result.stdout
    assert json.loads(oao("runs", "--json").stdout) == []
    assert list(folder.iterdir()) == []


def test_a_store_that_does_not_exist_is_an_error(oao: Oao, folder: Path) -> None:
    """A typing error in --store must not look like an empty store, nor make one."""
    result = oao("runs", "--store", "other.db")

    assert result.exit_code == 2
    assert "there is no store at 'other.db'" in result.stderr
    assert list(folder.iterdir()) == []


def test_a_long_name_gives_way(oao: Oao, journal: Journal) -> None:
    """At 80 columns a long agent name is cut, and no line is wider than the console."""
    journal("aaaa1111-x", finished("SUCCESS"), agent="an_agent_with_quite_a_long_name_indeed_" * 2)

    narrow, wide = oao("runs").stdout, oao("runs", width=160).stdout

    assert "an_agent" in narrow
    assert "…" in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in wide
