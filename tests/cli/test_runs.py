"""`oao runs`: the list of runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness import SQLiteStore

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
    journal("inner", {"type": "run.started", "agent": "inner", "parent": "new"}, at=time.time() - 3500)
    journal("fork", {"type": "run.started", "agent": "support", "forked": {"run": "old", "at": 2}}, at=2000)

    def ids(*options: str) -> list[str]:
        return [one["execution_id"] for one in json.loads(oao("runs", *options, "--json").stdout)]

    assert ids() == ["new", "fork", "old"]
    assert ids("--all") == ["inner", "new", "fork", "old"]
    assert ids("--agent", "refund") == ["new"]
    assert ids("--status", "failed") == ["old"]
    assert ids("--since", "2h") == ["new"]
    assert ids("--before", "2h") == ["fork", "old"]
    assert ids("--since", "1970-01-01T00:30", "--before", "2020-01-01") in (["fork"], ["fork", "old"], [])
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


def fill(folder: Path, count: int) -> None:
    """As many runs as an agent in production makes in weeks, three records each."""
    store = SQLiteStore(folder / ".oao" / "oao.db")
    store._db.execute("pragma synchronous=off")  # pyright: ignore[reportPrivateUsage]
    for n in range(count):
        name = f"{n * 2654435761 % 2**32:08x}-{n}"
        forked = {"forked": {"run": "0", "at": 1}} if n % 1000 == 7 else {}
        started = {"v": 1, "seq": 1, "type": "run.started", "at": 1000.0 + n, "agent": f"agent-{n % 7}", "task": "x", **forked}
        status = "FAILED" if n % 10 == 3 else "SUCCESS"
        end = {"v": 1, "seq": 2, "at": 1000.5 + n, **finished(status)}
        epoch = store.claim(name)
        store.append(name, epoch, started, end)  # type: ignore[arg-type]
    store.close()


@pytest.mark.slow
def test_a_hundred_thousand_runs_are_listed_without_reading_them(oao: Oao, folder: Path) -> None:
    """Each list is there within a second, whatever is asked for."""
    fill(folder, 100_000)
    for options in ([], ["--status", "failed"], ["--forks-of", "0000"], ["--status", "running"], ["--agent", "agent-3"]):
        began = time.perf_counter()
        result = oao("runs", *options)
        took = time.perf_counter() - began
        assert took < 1.0, (options, took)
        assert result.exit_code == 0 or "start of" in result.stderr
