"""Runs that wait for a worker, are tried again, or are dead letters: in the list of runs, and one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Journal, Oao

TOTALS = {"steps": 0, "model_calls": 0, "tool_calls": 0, "tokens": 0}
JOB = {"agent": "support", "tenant": "", "priority": "normal", "policy": [], "not_before": 0.0}
PLAN = {"type": "plan", "policy": ["Strict()"], "limits": {}, "waited_s": 1.0}


def test_a_queued_run_says_that_it_waits_for_a_worker(oao: Oao, journal: Journal) -> None:
    """Not that its process may have died: it never had one."""
    journal("waiting-1", job=JOB)

    listed, shown = oao("runs"), oao("show", "waiting-1")

    assert "◌ QUEUED" in listed.stdout
    assert "1 waits for a worker: oao jobs" in listed.stdout
    assert "INIT, queued" in shown.stdout
    assert "waits for a worker, queued" in shown.stdout
    assert "died" not in shown.stdout


def test_the_wait_in_the_queue_is_no_running_time(oao: Oao, journal: Journal) -> None:
    """A run that waited and was tried again tells both waits, and counts neither."""
    again = {"type": "run.queued", "reason": "503 from the shop", "attempt": 2, "not_before": 1013.0, "at": 1010.0}
    over = {"type": "run.finished", "status": "SUCCESS", "error": None, "output": "ok", "totals": TOTALS, "at": 1022.0}
    resumed = {**PLAN, "type": "run.resumed", "at": 1020.0}
    journal("again-1", {**PLAN, "at": 1002.0}, again, resumed, over, job=JOB)

    shown = oao("show", "again-1").stdout

    assert "begun by a worker; waited 1 s" in shown
    assert "queued again, try 2, in 3 s: 503 from the shop" in shown
    assert "resumed; waited 10 s" in shown
    assert "SUCCESS in 10 s" in shown  # 1002 to 1010 and 1020 to 1022
    assert "waited 11 s for a worker" in shown


def test_a_dead_letter_says_why_and_how_it_goes_on(oao: Oao, journal: Journal) -> None:
    """It is neither running nor a question for a person."""
    dead = {"type": "run.suspended", "reason": "5 workers ended with it", "approvals": [], "dead": True}
    journal("dead-1", PLAN, {**dead, "totals": TOTALS}, job=JOB)

    listed, shown = oao("runs", "--status", "dead"), oao("show", "dead-1")

    assert "✝ DEAD" in listed.stdout
    assert "1 is a dead letter: oao jobs dead" in listed.stdout
    assert "dead letter: 5 workers ended with it" in shown.stdout
    assert "oao jobs retry dead-1" in shown.stdout


def test_a_dead_letter_that_goes_on_is_queued_again(oao: Oao, journal: Journal) -> None:
    """By whom stands in its journal; the time that it lay there was waiting for a person."""
    dead = {"type": "run.suspended", "reason": "5 workers ended with it", "approvals": [], "dead": True}
    by = {"type": "run.queued", "reason": "mended", "not_before": 0, "by": {"id": "ann", "roles": []}, "at": 1063.0}
    journal("dead-2", PLAN, {**dead, "totals": TOTALS}, by, job=JOB)

    shown = oao("show", "dead-2").stdout

    assert "queued again by ann: mended" in shown
    assert "◌ QUEUED" in shown
    assert "waited 1 min for a person" in shown


def test_the_parts_of_a_run_are_shown_by_name(oao: Oao, journal: Journal) -> None:
    """Those that ran with their run, those that did not with the reason."""
    child = {"type": "child", "execution_id": "part-1", "node": "research"}
    skipped = {"type": "node", "node": "publish", "status": "SKIPPED", "reason": "review failed"}
    journal("whole-1", {"type": "plan"}, child, skipped)
    journal("part-1", {"type": "plan"}, agent="searcher", parent="whole-1", node="research")

    shown = oao("show", "whole-1").stdout

    assert "run part-1 node research, searcher, running" in shown
    assert "node publish ○ SKIPPED: review failed" in shown
