"""How a run's records become its row in a list of runs; the same for every store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, cast

from oao_hookspecs import Json, Record, RunSummary, tenant_of

__all__ = ["ENDS_LEASE", "OPEN", "Told", "after", "tells", "told"]

_TOLD: Final = frozenset({"run.started", "run.suspended", "run.queued", "run.resumed", "run.finished"})
"""Types of the records that change a run's row, see `tells`."""

OPEN: Final = frozenset({"QUEUED", "RUNNING", "SUSPENDED", "DEAD"})
"""Statuses of the runs that may go on."""

ENDS_LEASE: Final = frozenset({"run.suspended", "run.queued", "run.finished"})
"""Types of the records after which nobody is at work on the run."""


class Told(NamedTuple):
    """What a batch of records says of its run, whatever the row was before."""

    row: RunSummary
    """`finished_at` and `totals` are None where the batch does not say; the rest holds where the run began in it."""
    begun: bool
    """True where the batch holds the beginning of the run: then the row is whole."""
    ends_lease: bool


def tells(record: Record) -> bool:
    """Return True for a record that changes a run's row; the plan does, in a run that waited for a worker."""
    return record["type"] in _TOLD or "waited_s" in record


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
            status="RUNNING" if record.get("job") is None else "QUEUED",
            started_at=float(cast("float", record["at"])),
            parent=None if parent is None else str(parent),
            forked_from=None if source is None else str(source),
            tenant=tenant_of(record),
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
    if type_ in {"run.suspended", "run.queued"}:
        totals = cast("Mapping[str, Json] | None", record.get("totals"))
        status = "QUEUED" if type_ == "run.queued" else "DEAD" if record.get("dead") else "SUSPENDED"
        return replace(summary, status=status, totals=summary.totals if totals is None else totals)
    if type_ == "run.resumed" or (type_ == "plan" and "waited_s" in record):
        return replace(summary, status="RUNNING")
    return summary


def told(execution_id: str, records: Sequence[Record]) -> Told | None:
    """Return what a batch of records says of the row of its run; None where it says nothing.

    Args:
        execution_id: The run.
        records: What is appended.
    """
    types = [record["type"] for record in records if tells(record)]
    if not types:
        return None
    row = RunSummary(execution_id=execution_id, agent_name="", status="", started_at=0.0)
    for record in records:
        row = after(row, execution_id, record) or row
    return Told(row, "run.started" in types, not ENDS_LEASE.isdisjoint(types))
