"""`oao runs prune`: what is deleted, what stays, and what is said."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness import SQLiteStore

if TYPE_CHECKING:
    from tests.cli.conftest import Journal, Oao

DAY = 86_400
END = {"type": "run.finished", "status": "SUCCESS", "error": None, "output": None, "totals": {}}
HELD = {"type": "run.suspended", "reason": "held", "approvals": [], "totals": {}}


@pytest.fixture
def runs(journal: Journal) -> None:
    """Runs of today and of forty days ago, nested ones, a fork, and open ones."""
    old, now = time.time() - 40 * DAY, time.time() - 60
    journal(
        "old-1",
        {"type": "note", "text": "purple elephant"},
        {"type": "child", "execution_id": "in-1", "n": 1},
        END,
        at=old,
    )
    journal("in-1", agent="inner", parent="old-1", at=old)
    journal("old-2", {**END, "status": "FAILED"}, at=old + 10)
    journal("held", HELD, at=old + 20)
    journal("dead", at=old + 30)
    journal("new", END, at=now)
    journal("fork", END, forked={"run": "old-1", "at": 2}, at=now + 1)


def left(oao: Oao) -> set[str]:
    return {one["execution_id"] for one in json.loads(oao("runs", "--all", "--json").stdout)}


@pytest.mark.usefixtures("runs")
def test_old_runs_go_with_what_is_nested_in_them(oao: Oao, folder: Path) -> None:
    """Open ones stay, whatever their age, and are named; nothing is left of the others on the disk."""
    result = oao("runs", "prune", "--older-than", "30d", "--yes")

    assert result.exit_code == 0
    assert "deleted 3 runs, 1 of them nested, started " in result.stdout
    assert "1 run waiting for a person stays; --include-suspended deletes such too" in result.stdout
    assert "1 run without an end stays; --include-interrupted deletes such too" in result.stdout
    assert left(oao) == {"held", "dead", "new", "fork"}
    assert b"purple elephant" not in b"".join(path.read_bytes() for path in (folder / ".oao").iterdir())


@pytest.mark.usefixtures("runs")
def test_a_fork_of_a_deleted_run_stays_readable_and_says_so(oao: Oao) -> None:
    """Its source is gone."""
    oao("runs", "prune", "--run", "old-1", "--yes")
    shown = oao("show", "fork")
    assert shown.exit_code == 0
    assert "old-1, at call #2; that run is gone" in shown.stdout


@pytest.mark.usefixtures("runs")
def test_a_dry_run_and_an_unconfirmed_one_delete_nothing(oao: Oao) -> None:
    """--dry-run says it; without a terminal nobody can be asked."""
    before = left(oao)
    assert "would delete 3 runs" in oao("runs", "prune", "--older-than", "30d", "--dry-run").stdout
    assert json.loads(oao("runs", "prune", "--older-than", "30d", "--dry-run", "--json").stdout) == {
        "dry_run": True,
        "runs": ["old-1", "in-1", "old-2"],
        "busy": [],
        "open": {"RUNNING": 1, "SUSPENDED": 1},
    }
    asked = oao("runs", "prune", "--older-than", "30d")
    assert (asked.exit_code, asked.stderr.count("\n")) == (2, 1)
    assert "3 runs would be deleted for good; say --yes" in asked.stderr
    assert left(oao) == before


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--older-than", "30d", "--status", "failed"], {"old-2"}),
        (["--older-than", "30d", "--agent", "nobody"], set[str]()),
        (
            ["--older-than", "30d", "--include-suspended", "--include-interrupted"],
            {"old-1", "in-1", "old-2", "held", "dead"},
        ),
        (["--older-than", "50d"], set[str]()),
        (["--older-than", "30d", "--keep", "5"], {"old-1", "in-1"}),
        (["--keep", "1"], {"old-1", "in-1", "old-2", "new"}),
        (["--run", "ne", "--run", "old-2", "--no-compact"], {"new", "old-2"}),
    ],
)
def test_what_is_asked_for_goes_and_nothing_else(oao: Oao, options: list[str], gone: set[str]) -> None:
    """By age, status, agent, number and id."""
    before = left(oao)
    assert oao("runs", "prune", *options, "--yes").exit_code == 0
    assert before - left(oao) == gone


@pytest.mark.usefixtures("runs")
def test_a_run_that_somebody_goes_on_with_stays(oao: Oao, folder: Path) -> None:
    """A live lease counts for more than an option."""
    store = SQLiteStore(folder / ".oao" / "oao.db")
    store.claim("held", owner="pid 7", ttl_s=30)
    result = oao("runs", "prune", "--older-than", "30d", "--include-suspended", "--yes")
    store.close()
    assert "run held stays: somebody went on with it" in result.stdout
    assert left(oao) == {"held", "dead", "new", "fork"}


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say which runs: --older-than 30d, --keep 1000 or --run ID"),
        (["--older-than", "a month"], "--older-than 'a month' is no time span"),
        (["--run", "zzz"], "there is no run 'zzz'"),
        (["--run", "old"], "'old' is the start of 2 ids"),
        (["--run", "in-1"], "'in-1' is nested in run 'old-1'; delete that one"),
    ],
)
def test_a_mistake_is_one_line(oao: Oao, options: list[str], said: str) -> None:
    """Exit code 2, and nothing is deleted."""
    before = left(oao)
    result = oao("runs", "prune", *options, "--yes")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert said in result.stderr
    assert left(oao) == before


def test_without_a_store_there_is_nothing_to_delete(oao: Oao, folder: Path) -> None:
    """Looking makes no file."""
    assert oao("runs", "prune", "--keep", "3").exit_code == 2
    assert list(folder.iterdir()) == []
