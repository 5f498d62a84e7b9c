"""The report of a run that has ended, made of its journal."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from oao_harness.runtime.report import ExecutionReport
from oao_hookspecs import Json, Record

__all__ = ["bare_report", "stored_report"]


def stored_report(records: Sequence[Record]) -> ExecutionReport | None:
    """Return how a run ended, as far as its journal tells: what the agent returned, as JSON; no object.

    Args:
        records: Its journal.

    Returns:
        None where there is no journal, or the run is not over.
    """
    over = next((record for record in reversed(records) if record["type"] == "run.finished"), None)
    if over is None:
        return None
    started, totals = records[0], cast("Mapping[str, Any]", over.get("totals") or {})
    violation = next((record for record in records if record["type"] == "violation"), None)
    usage: dict[str, int] = {}
    for record in records:
        if record["type"] == "call" and record["kind"] == "tool":
            usage[str(record["name"])] = usage.get(str(record["name"]), 0) + 1
    return ExecutionReport(
        execution_id=str(started["execution_id"]),
        agent_name=str(started["agent"]),
        status="SUCCESS" if over["status"] == "SUCCESS" else "FAILED",
        error=cast("str | None", over.get("error")),
        violation=_violation(violation) if over["status"] != "SUCCESS" and violation is not None else None,
        total_tokens=totals.get("tokens", 0),
        cost_usd=totals.get("cost_usd"),
        total_steps=totals.get("steps", 0),
        model_calls=totals.get("model_calls", 0),
        tool_calls=totals.get("tool_calls", 0),
        tool_usage=usage,
        execution_time_seconds=max(0.0, cast("float", over["at"]) - cast("float", started["at"])),
        state_history=["INIT", *(str(one["state"]) for one in records if one["type"] == "state")],
        final_output=over.get("output"),
        ungoverned=[str(one["what"]) for one in records if one["type"] == "ungoverned"],
        timestamp=dt.datetime.fromtimestamp(cast("float", started["at"]), dt.UTC),
    )


def _violation(record: Record) -> dict[str, Any]:
    return {key: record[key] for key in ("rule", "plugin", "reason", "source", "n") if key in record}


def bare_report(
    agent_name: str,
    status: Literal["SUCCESS", "FAILED", "QUEUED", "SKIPPED"],
    error: str | None,
    *,
    now: float,
    output: Json = None,
    execution_id: str = "",
) -> ExecutionReport:
    """Return the report of something that has no run of its own, or whose run did not report.

    Args:
        agent_name: Who would have run.
        status: What became of it.
        error: Why.
        now: Unix seconds.
        output: What stands for its result.
        execution_id: Of its run; empty where there is none.
    """
    return ExecutionReport(
        execution_id=execution_id,
        agent_name=agent_name,
        status=status,
        error=error,
        final_output=output,
        timestamp=dt.datetime.fromtimestamp(now, dt.UTC),
    )
