"""How a run's records become its row in a list of runs; the same for every store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, cast

from oao_hookspecs import Json, Record, RunSummary

__all__ = ["ENDS_LEASE", "TOLD", "after"]

TOLD: Final = frozenset({"run.started", "run.suspended", "run.resumed", "run.finished"})
"""Types of the records that change a run's row."""

ENDS_LEASE: Final = frozenset({"run.suspended", "run.finished"})
"""Types of the records after which nobody is at work on the run."""


def after(summary: RunSummary | None, execution_id: str, record: Record) -> RunSummary | None:
    """Return a run's row after one more record of it; None before it was started.

    Args:
        summary: The row so far.
        execution_id: The run.
        record: What was appended.
    """
    type_ = record["type"]
    if type_ == "run.started":
        forked = cast("Mapping[str, Json]", record.get("forked") or {})
        parent, source = record.get("parent"), forked.get("run")
        return RunSummary(
            execution_id=execution_id,
            agent_name=str(record["agent"]),
            status="RUNNING",
            started_at=float(cast("float", record["at"])),
            parent=None if parent is None else str(parent),
            forked_from=None if source is None else str(source),
        )
    if summary is None:
        return None
    if type_ == "run.finished":
        return replace(
            summary,
            status=str(record["status"]),
            finished_at=float(cast("float", record["at"])),
            totals=cast("Mapping[str, Json]", record["totals"]),
        )
    if type_ in TOLD:
        return replace(summary, status="SUSPENDED" if type_ == "run.suspended" else "RUNNING")
    return summary
