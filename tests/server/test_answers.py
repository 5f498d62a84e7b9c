"""An answer is for the one question whose id it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from oao_harness import Orchestrator, UsageError, tool
from oao_harness.journal.inbox import answer_question
from oao_harness.runtime.clock import SystemClock
from oao_hookspecs import Approve, Principal

DESK = '[tools]\nask = ["pay"]\n'


@tool(effect="once")
def pay(n: int) -> int:
    """Send money."""
    return n


def payer(task: int) -> int:
    return sum(pay(n) for n in range(task))


def test_a_late_answer_is_none_to_a_question_whose_id_begins_so(tmp_path: Path) -> None:
    """A second answer to question 1 does not approve question 10, which is open by then."""
    (tmp_path / "desk.toml").write_text(DESK)
    orchestrator = Orchestrator(str(tmp_path / "desk.toml"), store=f"sqlite:{tmp_path / 'oao.db'}")
    store, clock, yes = orchestrator.store, SystemClock(), Approve(by=Principal(id="ann"))
    report = orchestrator.run(payer, 12)
    id_ = report.execution_id
    while len(report.approvals) and not report.approvals[0]["id"].endswith("-10"):
        answer_question(store, report.approvals[0]["id"], yes, clock, exact=True)
        report = orchestrator.resume(id_, payer)

    assert report.approvals[0]["id"] == f"{id_}-10"
    before = len(list(store.read(id_)))
    with pytest.raises(UsageError, match="open no more"):
        answer_question(store, f"{id_}-1", yes, clock, exact=True)
    assert len(list(store.read(id_))) == before
