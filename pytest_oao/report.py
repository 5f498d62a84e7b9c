"""What oao saw of a test, as JSON: one object for each test, and the report of a session around them. Version 1.

```text
schema     "oao-report/1"
session    policy, record, live, order, started (ISO 8601, UTC), duration_s, exit, versions by distribution
tests      nodeid, outcome, duration_s, steps, model_calls, tool_calls, tokens, tokens_estimated, cost_usd, policy,
           runs        [{name, status, steps, model_calls, tool_calls, tokens, cost_usd, decisions}]
           violations  [{run, rule, step, reason, expected}]
           waived      [{rule, why}]
           replay      {status, step, kind, message, changes}
           recording   {path, exists, recorded, age_days} or null
           strength    {caught, total, missed} or null
           ungoverned  [text]
           uncovered   [text], client libraries whose HTTP is neither recorded nor played
totals     tests, runs, steps, model_calls, tool_calls, tokens, cost_usd, saved_tokens, saved_usd, violations, ...
orphans    paths of recordings without a test
pending    paths of recordings that wait for a review
```

The same object is `report.oao` of each test, so it survives xdist and appears in report logs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from oao_harness.errors import ReplayDiverged, RunHalted
from oao_harness.journal.mutation import Strength
from oao_harness.runtime.run import Run
from oao_hookspecs import Record
from pytest_oao.governance import coverage_rows, decision_lines
from pytest_oao.runs import Look, cost_of
from pytest_oao.totals import SUMS, totals_of

if TYPE_CHECKING:
    from pytest_oao.session import TestSession

__all__ = ["SCHEMA", "properties_of", "row_of", "write_report"]

SCHEMA: Final = "oao-report/1"


def row_of(session: TestSession) -> dict[str, Any] | None:
    """Return what there is to tell of a test; None where no agent ran."""
    looks = session.looks()
    if not looks:
        return None
    tops = [look.run for look in looks if look.run.parent is None]
    halt = next((run.halted for run in tops if run.halted is not None), None)
    recording = session.recording
    state = recording.state
    if session.verdict is not None and halt is None:
        # The verdict is about the recording: calls that were not made, or that cannot be kept.
        state = "unplayed" if state == "unplayed" else "diverged" if recording.exists else "no recording"
    denied = halt is not None and not isinstance(halt, ReplayDiverged)
    violations = [violation for name, run in session.runs for violation in _violations(name, run, session)]
    return {
        "nodeid": session.nodeid,
        **{name: sum(getattr(run.budget.totals, name) for run in tops) for name in SUMS},
        "tokens_estimated": any(run.budget.totals.estimated for run in tops),
        "cost_usd": session.cost() if any(run.budget.totals.tokens for run in tops) else 0.0,
        "policy": cast("RunHalted", halt).rule if denied else "ok",
        "runs": [_run(name, look, session) for (name, _), look in zip(session.runs, looks, strict=False)],
        "violations": violations,
        "waived": [{"rule": one.rule, "why": str(one)} for one in session.waivers],
        "replay": {
            "status": state,
            "step": getattr(halt, "step", None),
            "kind": getattr(halt, "kind", None) if isinstance(halt, ReplayDiverged) else None,
            "message": session.verdict if isinstance(halt, ReplayDiverged) or halt is None else None,
            "changes": recording.changes,
        },
        "recording": {
            "path": recording.shown_path,
            "exists": recording.exists,
            "recorded": recording.recorded_at,
            "age_days": recording.age_days(datetime.now(UTC)),
        }
        if recording.exists or state in {"recorded", "pending"}
        else None,
        "strength": _strength(session.strength),
        "ungoverned": [what for run in tops for what in run.ungoverned],
        "uncovered": session.http.uncovered,
        "coverage": coverage_rows(session.orchestrator.policies, session.tape()),
        "decisions": decision_lines(session.tape()) if session.settings.explain else [],
    }


def _strength(found: Strength | None) -> dict[str, Any] | None:
    if found is None:
        return None
    missed = [f"step {one.step}: {one.description} ({one.blame})" for one in found.missed]
    return {"caught": found.caught, "total": found.total, "missed": missed}


def _run(name: str, look: Look, session: TestSession) -> dict[str, Any]:
    totals = look.run.budget.totals
    # In replay only the cost of the whole recording is known: to look prices up takes longer than the replay.
    played = session.recording.plays and not session.recording.has_forked
    cost = (session.cost() if len(session.runs) == 1 else None) if played else cost_of(look.run, look.records)
    decisions = Counter(_verdict(record) for record in look.records if record["type"] == "call")
    return {
        "name": name,
        "status": "ok" if look.run.halted is None else type(look.run.halted).__name__,
        **{field: getattr(totals, field) for field in SUMS},
        "cost_usd": cost,
        "decisions": dict(decisions),
    }


def _verdict(record: Record) -> str:
    return str(cast("Mapping[str, object]", record["decision"])["verdict"])


def _violations(name: str, run: Run, session: TestSession) -> list[dict[str, Any]]:
    halt = run.halted
    if halt is None or isinstance(halt, ReplayDiverged):
        return []
    return [
        {"run": name, "rule": halt.rule, "step": halt.n, "reason": halt.reason, "expected": halt in session.expected}
    ]


def properties_of(row: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return the scalars of a test for junit: `oao.steps`, `oao.tokens` and their like."""
    return [
        *((f"oao.{name}", row[name]) for name in (*SUMS, "cost_usd", "policy") if row[name] is not None),
        ("oao.violations", len(row["violations"])),
        ("oao.replay", row["replay"]["status"]),
    ]


def write_report(
    path: Path, session: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], found: Mapping[str, Sequence[str]]
) -> None:
    """Write the report of a session.

    Args:
        path: The file; its folder is made where it is missing.
        session: What was asked for, and how it ended.
        rows: Of all tests, with `outcome`.
        found: `orphans` and `pending`.

    Raises:
        pytest.UsageError: It cannot be written.
    """
    hidden = {"decisions", "coverage"}
    # Workers of xdist end in any order; attempts of one test stay in theirs.
    ordered = sorted(rows, key=lambda row: str(row["nodeid"]))
    tests = [{name: value for name, value in row.items() if name not in hidden} for row in ordered]
    whole = {"schema": SCHEMA, "session": session, "tests": tests, "totals": totals_of(rows), **found}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise pytest.UsageError(f"oao: the report {path} cannot be written: {error}") from error
