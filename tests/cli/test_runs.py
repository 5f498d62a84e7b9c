"""`oao runs`: the list of runs."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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


def test_runs_are_filtered(oao: Oao, journal: Journal) -> None:
    """By agent, status, start, and lineage; nested runs only with --all."""
    journal("old", finished("FAILED"), at=1000)
    journal("new", finished("SUCCESS"), at=time.time() - 3600, agent="refund")
    journal("inner", agent="inner", parent="new", at=time.time() - 3500)
    journal("fork", forked={"run": "old", "at": 2}, at=2000)

    def ids(*options: str) -> list[str]:
        return [one["execution_id"] for one in json.loads(oao("runs", *options, "--json").stdout)]

    assert ids() == ["new", "fork", "old"]
    assert ids("--all") == ["inner", "new", "fork", "old"]
    assert ids("--agent", "refund") == ["new"]
    assert ids("--status", "failed") == ["old"]
    assert ids("--since", "2h") == ["new"]
    assert ids("--before", "2h") == ["fork", "old"]
    assert ids("--since", "1999-01-01", "--before", "2020-01-01") == []
    assert ids("--forks-of", "ol") == ["fork"]
    assert "fork of old" in oao("runs").stdout
    assert "No run is like that." in oao("runs", "--agent", "nobody").stdout


def test_what_is_open_is_said_with_what_to_do(oao: Oao, journal: Journal) -> None:
    """One line for what waits for a person, one for what has no end."""
    journal("a", {"type": "run.suspended", "reason": "held", "approvals": [], "totals": {}})
    journal("b")
    journal("c")

    shown = oao("runs").stdout

    assert "◆ 1 waits for a person: oao approvals" in shown
    assert "● 2 are running, or their processes died: oao resume ID" in shown


def test_ids_that_begin_alike_are_shown_whole(oao: Oao, journal: Journal) -> None:
    """What is shown can be typed."""
    journal("order-2026-1", finished("SUCCESS"))
    journal("order-2026-2", finished("SUCCESS"), at=2000)
    shown = oao("runs").stdout
    assert "order-2026-1" in shown
    assert "order-2026-2" in shown


@pytest.mark.parametrize("arguments", [["--since", "yesterday"], ["--before", "7 moons"], ["--forks-of", "zzz"]])
def test_a_wrong_filter_is_one_line(oao: Oao, journal: Journal, arguments: list[str]) -> None:
    """Exit code 2 and what could be written."""
    journal("a")
    result = oao("runs", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""


MANY = """
with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000)
insert into runs
  (execution_id, epoch, ordinal, agent_name, status, started_at, finished_at, totals, forked_from, tenant)
select printf('%08x-%d', i * 2654435761 % 4294967296, i), 1, i + 1, 'agent-' || (i % 7),
       case i % 10 when 3 then 'FAILED' else 'SUCCESS' end, 1000.0 + i, 1000.5 + i, totals,
       case i % 1000 when 7 then 'first' end, ''
from n, runs where execution_id = 'first'
"""


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ([], 20),
        (["--status", "failed"], 20),
        (["--status", "running"], 0),
        (["--forks-of", "first", "--limit", "1000"], 100),
        (["--agent", "agent-3"], 20),
        (["--before", "1970-01-03"], 20),
    ],
)
def test_a_hundred_thousand_runs_are_listed_in_no_time(
    oao: Oao, journal: Journal, folder: Path, options: list[str], count: int
) -> None:
    """No journal is read, and no row that is not asked for: there are none of 100,000 of these runs."""
    journal("first", finished("SUCCESS"), at=900)
    db = sqlite3.connect(folder / ".oao" / "oao.db")
    db.execute(MANY)
    db.commit()
    db.close()
    began = time.perf_counter()

    result = oao("runs", "--json", *options)

    # Seen: 0.05 s and less; a list that read all rows would take more than a second.
    assert time.perf_counter() - began < 1.0
    assert len(json.loads(result.stdout)) == count
