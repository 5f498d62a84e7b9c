"""How a run's first and last record become its row in a list of runs; the same for every store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from oao_hookspecs import Json, Record, RunSummary

__all__ = ["MOVES", "moved", "opened", "settled"]

MOVES = frozenset({"run.suspended", "run.resumed"})
"""Records that change a run's status and leave it open."""


def opened(execution_id: str, record: Record) -> RunSummary:
    """Return the row of a run whose `run.started` record this is."""
    return RunSummary(
        execution_id=execution_id,
        agent_name=str(record["agent"]),
        status="RUNNING",
        started_at=float(cast("float", record["at"])),
    )


def moved(summary: RunSummary, record: Record) -> RunSummary:
    """Return the row of a run that was suspended or resumed."""
    return replace(summary, status="SUSPENDED" if record["type"] == "run.suspended" else "RUNNING")


def settled(summary: RunSummary, record: Record) -> RunSummary:
    """Return the row of a run whose `run.finished` record this is."""
    return replace(
        summary,
        status=str(record["status"]),
        finished_at=float(cast("float", record["at"])),
        totals=cast("Mapping[str, Json]", record["totals"]),
    )
