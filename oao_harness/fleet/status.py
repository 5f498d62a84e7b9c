"""What became of a run, read from its journal: for who did not run it. Pure."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from oao_harness.journal.doubts import doubts_of
from oao_harness.journal.questions import Questions, request_fields
from oao_harness.runtime.doubts import doubt_fields
from oao_harness.runtime.report import ExecutionReport
from oao_hookspecs import Json, Record

__all__ = ["JobStatus", "Status", "advanced", "fruitless", "job_of", "report_of", "status_of"]

Status = Literal["QUEUED", "RUNNING", "SUSPENDED", "DEAD", "SUCCESS", "FAILED"]

# An attempt that adds only these to the journal has made no progress.
_NO_PROGRESS: Final = frozenset({"run.resumed", "plan", "state", "run.started", "ungoverned", "again"})
_BEGINS: Final = frozenset({"run.resumed", "plan"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """How far a job is."""

    execution_id: str
    agent: str
    status: Status
    """QUEUED, RUNNING, SUSPENDED (a person must answer), DEAD (a dead letter), SUCCESS or FAILED."""
    tenant: str = ""
    priority: str = "normal"
    attempts: int = 0
    """How often a worker began with it."""
    retries: int = 0
    """How often it was tried again after an error."""
    reason: str = ""
    """Why it failed, waits, or is dead; empty for none."""
    not_before: float = 0.0
    """Unix seconds before which nobody begins with it."""
    queued_at: float = 0.0
    """Unix seconds."""
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def is_over(self) -> bool:
        """True where it never goes on."""
        return self.status in {"SUCCESS", "FAILED"}

    @property
    def is_waiting(self) -> bool:
        """True where nothing happens before a person acts."""
        return self.status in {"SUSPENDED", "DEAD"}


def job_of(records: Sequence[Record]) -> Mapping[str, Json] | None:
    """Return what a queued run asks of workers; None for a run that was never queued."""
    found = records[0].get("job") if records else None
    return cast("Mapping[str, Json] | None", found)


def status_of(records: Sequence[Record]) -> JobStatus:
    """Return how far a run is.

    Args:
        records: Its journal, at least one record.
    """
    first, job = records[0], job_of(records) or {}
    status: Status = "QUEUED" if job else "RUNNING"
    reason, not_before = "", float(cast("float", job.get("not_before", 0.0)))
    attempts = retries = 0
    started: float | None = None
    ended: float | None = None
    for record in records:
        type_, at = record["type"], cast("float", record["at"])
        if type_ in _BEGINS:
            status, reason, attempts = "RUNNING", "", attempts + 1
            started = at if started is None else started
        elif type_ == "run.queued":
            status, reason = "QUEUED", str(record["reason"])
            not_before = float(cast("float", record["not_before"]))
            retries += "attempt" in record
        elif type_ == "run.suspended":
            status, reason = ("DEAD" if record.get("dead") else "SUSPENDED"), str(record["reason"])
        elif type_ == "run.finished":
            status, reason, ended = cast("Status", record["status"]), str(record["error"] or ""), at
    return JobStatus(
        execution_id=str(first["execution_id"]),
        agent=str(first["agent"]),
        status=status,
        tenant=str(job.get("tenant", "")),
        priority=str(job.get("priority", "normal")),
        attempts=attempts,
        retries=retries,
        reason=reason,
        not_before=not_before,
        queued_at=float(cast("float", first["at"])),
        started_at=started,
        ended_at=ended,
    )


def fruitless(records: Sequence[Record]) -> int:
    """Return how many attempts in a row, up to now, have added nothing to the journal: their workers died of it."""
    count = 0
    for record in reversed(records):
        if record["type"] not in _NO_PROGRESS:
            return count
        count += record["type"] in _BEGINS
    return count


def advanced(records: Sequence[Record], since: float) -> bool:
    """Return True where a run came further after a moment.

    Args:
        records: Its journal.
        since: Unix seconds.
    """
    return any(cast("float", one["at"]) >= since and one["type"] not in _NO_PROGRESS for one in records)


def report_of(records: Sequence[Record]) -> ExecutionReport:
    """Return the report of a run that another process made, as far as its journal tells it.

    `result` is None: an object does not travel. `execution_hash` is empty, and `tokens` are those of the calls in this
    journal, without nested runs.

    Args:
        records: Its journal, at least one record.
    """
    told = status_of(records)
    now = cast("float", records[-1]["at"])
    last = next((record for record in reversed(records) if "totals" in record), None)
    totals = cast("Mapping[str, Any]", last["totals"] if last is not None else {})
    calls = {record["n"]: record for record in records if record["type"] == "call"}
    used = [cast("Mapping[str, Any]", one["usage"]) for one in records if one["type"] == "outcome" and "usage" in one]
    violation = next((record for record in reversed(records) if record["type"] == "violation"), None)
    finished = next((record for record in records if record["type"] == "run.finished"), None)
    tools = Counter(str(record["name"]) for record in calls.values() if record["kind"] == "tool")
    states = ["INIT", *(str(record["state"]) for record in records if record["type"] == "state")]
    status = "SUSPENDED" if told.status == "DEAD" else "QUEUED" if told.status == "RUNNING" else told.status
    return ExecutionReport(
        execution_id=told.execution_id,
        agent_name=told.agent,
        status=status,
        error=told.reason or None,
        violation=None if violation is None or told.status != "FAILED" else _violation(violation),
        total_tokens=int(totals.get("tokens", 0)),
        input_tokens=sum(int(one.get("in", 0)) for one in used),
        output_tokens=sum(int(one.get("out", 0)) for one in used),
        tokens_estimated=any(bool(one.get("estimated")) for one in used),
        total_steps=int(totals.get("steps", 0)),
        model_calls=int(totals.get("model_calls", 0)),
        tool_calls=int(totals.get("tool_calls", 0)),
        cost_usd=totals.get("cost_usd"),
        tool_usage=dict(tools),
        execution_time_seconds=max(0.0, (told.ended_at or now) - (told.started_at or told.queued_at)),
        state_history=states,
        final_output=None if finished is None else finished["output"],
        approvals=[request_fields(one.request) for one in Questions(records).pending(now)] if told.is_waiting else [],
        in_doubt=[doubt_fields(doubt) for doubt in doubts_of(records)] if told.is_waiting else [],
        ungoverned=[str(record["what"]) for record in records if record["type"] == "ungoverned"],
        timestamp=dt.datetime.fromtimestamp(told.started_at or told.queued_at, dt.UTC),
    )


def _violation(record: Record) -> dict[str, Any]:
    return {key: record[key] for key in ("rule", "plugin", "reason", "source", "n") if key in record}
