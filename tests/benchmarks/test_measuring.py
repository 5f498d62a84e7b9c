"""`python -m benchmarks`: rows are well-formed, contenders take turns, what fails is named, the page is the record."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import record
from benchmarks.__main__ import PAGE, RESULTS
from benchmarks.contending import Contender, Figure, Goal, Row
from benchmarks.measuring import QUICK, measure, ratio_of
from benchmarks.rendering import load, page
from benchmarks.rows import all_rows

ROOT = Path(__file__).parents[2]
HERE = "tests.benchmarks.contenders"
US = Figure(key="us", unit="us")


def contender(name: str, function: str = "constant", process: str = "one", **options: object) -> Contender:
    return Contender(name=name, make=f"{HERE}:{function}", options=options, process=process)


def a_row(*contenders: Contender, goals: tuple[Goal, ...] = (), limit_s: float = 20.0) -> Row:
    return Row(
        id="row", title="a row", how="Somehow.", figures=(US,), contenders=contenders, goals=goals, limit_s=limit_s
    )


def by_name(found: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one for one in found["contenders"]}


@pytest.mark.parametrize("row", all_rows().values(), ids=all_rows())
def test_rows_are_well_formed(row: Row) -> None:
    """Names are unique, functions are there, goals name contenders and figures of the row, and have one bound."""
    names = [one.name for one in row.contenders]
    assert len(set(names)) == len(names)
    assert row.base in names
    for one in row.contenders:
        module, _, function = one.make.partition(":")
        assert callable(getattr(import_module(module), function)), one.make
        json.dumps(dict(one.options))
    for goal in row.goals:
        assert {goal.contender, *goal.than} <= set(names), goal
        assert (goal.at_most is None) != (goal.at_least is None), goal
        assert not goal.figure or goal.figure in {figure.key for figure in row.figures}, goal
    assert row.rounds >= 5 or row.takes_minutes or row.id == "takeover", "a median of at least five"


def test_contenders_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    """Every second round goes backwards; a name is a process for all rounds, no name is a fresh one for each."""
    log = str(tmp_path / "log")
    found = measure(
        a_row(
            contender("a", value=2, log=log, who="a"),
            contender("b", value=3, log=log, who="b"),
            contender("c", process="", value=6, log=log, who="c"),
        ),
        QUICK,
    )
    lines = [line.split() for line in Path(log).read_text(encoding="utf-8").splitlines()]
    # The first round of a process that stays is to warm up.
    assert "".join(name for name, _ in lines) == "aabbccba"
    processes = {who: [process for name, process in lines if name == who] for who in "abc"}
    assert len({*processes["a"], *processes["b"]}) == 1
    assert len(set(processes["c"])) == 2
    assert by_name(found)["c"]["figures"]["us"] == {"median": 6, "min": 6, "max": 6, "rounds": [6, 6]}
    assert [one["ratio"] for one in found["contenders"]] == [1, 1.5, 3]


def test_who_cannot_be_measured_is_named_with_the_reason() -> None:
    """Not installed, an error, a death and a hang each have their words, and nobody else suffers."""
    found = by_name(
        measure(
            a_row(
                contender("sound", value=1),
                contender("absent", "not_installed"),
                contender("raising", "raises"),
                contender("dying", "dies", process="dying"),
                contender("hanging", "hangs", process="hanging"),
                limit_s=5.0,
            ),
            QUICK,
        )
    )
    assert found["sound"]["figures"]["us"]["median"] == 1
    assert found["absent"]["missing"] == "not installed: a_package_that_nobody_has"
    assert found["raising"]["error"] == "ValueError: cannot be made"
    assert found["dying"]["error"] == "its process ended: killed by itself"
    assert found["hanging"]["error"] == "took longer than 5 s"


def test_what_a_contender_has_started_ends_with_it(tmp_path: Path) -> None:
    """A contender over its limit is asked to end, so that its servers and workers do not stay behind."""
    pid_file = tmp_path / "pid"
    row = a_row(contender("hanging", "hangs_with_a_server", pid_file=str(pid_file)), limit_s=5.0)
    assert by_name(measure(row, QUICK))["hanging"]["error"] == "took longer than 5 s"
    assert not Path("/proc", pid_file.read_text(encoding="utf-8")).exists()


def test_goals_are_met_missed_or_not_measured() -> None:
    """Bounds are of a figure, or of its ratio to the best of others; one without numbers meets nothing."""
    goals = (
        Goal(says="small", contender="a", at_most=2),
        Goal(says="ahead of all", contender="a", at_most=0.5, than=("b", "c")),
        Goal(says="far behind", contender="c", at_least=3, than=("a",)),
        Goal(says="no numbers", contender="broken", at_most=1),
    )
    row = a_row(
        contender("a", value=2),
        contender("b", value=3),
        contender("c", value=6),
        contender("broken", "raises"),
        goals=goals,
    )
    found = measure(row, QUICK)["goals"]
    assert [goal["met"] for goal in found] == [True, False, True, None]
    assert [goal["value"] for goal in found] == [2, pytest.approx(0.6667), 3, None]


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    """A round in which the machine was slow does not count as a slow contender."""
    rounds = {"a": [{"us": 1.0}, {"us": 20.0}, {"us": 3.0}], "b": [{"us": 2.0}, {"us": 40.0}, {"us": 3.0}]}
    assert ratio_of(rounds, "a", ("b",), "us", least=True) == 0.5
    assert ratio_of(rounds, "a", ("nobody",), "us", least=True) is None


def test_rows_join_the_record_that_is_there(tmp_path: Path) -> None:
    """A row that is measured anew replaces the old one in its place, others stay, and what is no row any more goes."""
    file = tmp_path / "results.json"
    for ids in (("a", "gone", "b"), ("a",)):
        made = record.begun(quick=True)
        for name in ids:
            record.add(made, {"id": name, "contenders": [{"packages": ["pytest"]}], "of": len(ids)})
        record.write(file, made, ["a", "b", "c"])
    found = record.read(file)
    assert [(row["id"], row["of"]) for row in found["rows"]] == [("a", 1), ("b", 3)]
    assert set(found["versions"]) == {"oao-harness", "pytest"}


def test_the_command_measures_a_row(tmp_path: Path) -> None:
    """In a process of its own, quickly; the record has every contender, and nothing else is written."""
    file = tmp_path / "found.json"
    before = RESULTS.read_bytes(), PAGE.read_bytes()
    command = [sys.executable, "-m", "benchmarks", "policy", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "under 15 us at 100 rules" in done.stderr
    made = record.read(file)
    (found,) = made["rows"]
    expected = all_rows()["policy"]
    assert [one["name"] for one in found["contenders"]] == [one.name for one in expected.contenders]
    assert all("figures" in one or "missing" in one for one in found["contenders"]), found
    assert found["goals"][0]["met"] in {True, False}
    assert made["quick"]
    assert (RESULTS.read_bytes(), PAGE.read_bytes()) == before
    assert "100 rules" in page(made)


def test_an_unknown_row_is_refused_by_name() -> None:
    """With the names that there are."""
    command = [sys.executable, "-m", "benchmarks", "polcy"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no such row: polcy; there are run, call" in done.stderr


def test_the_page_is_made_of_the_record() -> None:
    """docs/benchmarks.md is what `python -m benchmarks --render` writes."""
    assert PAGE.read_text(encoding="utf-8") == page(record.read(RESULTS))


def test_the_record_is_of_the_rows_that_there_are() -> None:
    """None is a quick one, each has the contenders and goals of today, and knows its load and its date."""
    kept, known = record.read(RESULTS), all_rows()
    assert not kept["quick"]
    for row in kept["rows"]:
        assert row["load"]["before"] >= 0
        assert row["date"]
        names = [one.name for one in known[row["id"]].contenders]
        assert [one["name"] for one in row["contenders"]] == names, row["id"]
        assert [goal["says"] for goal in row["goals"]] == [goal.says for goal in known[row["id"]].goals], row["id"]


def test_a_failed_contender_is_shown_with_its_reason() -> None:
    """A reader of the page sees who was not measured, and why."""
    row = a_row(contender("sound", value=1), contender("absent", "not_installed"))
    made = record.begun(quick=True)
    record.add(made, measure(replace(row, title="a title"), QUICK))
    text = page(made)
    assert "## A title" in text
    assert "| absent | not installed: a_package_that_nobody_has |" in text


def test_the_load_says_how_many_rounds_began_quietly() -> None:
    """And that nothing is firm where none did."""
    found = {"before": 0.5, "most": 1.25, "quiet_rounds": 4}
    assert load({"load": found, "rounds": 5}).endswith("4 of 5 rounds began with an idle core")
    assert load({"load": {**found, "quiet_rounds": 0}, "rounds": 5}).startswith("5 rounds, load 0.5 before")
