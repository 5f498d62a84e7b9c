"""Suspends a run that cannot go on before a person has said what became of a call."""

from __future__ import annotations

from oao_harness.journal.doubts import Doubt
from oao_harness.runtime.approvals import suspending
from oao_harness.runtime.dispatch import Steps
from oao_harness.runtime.run import Run
from oao_hookspecs import Json

__all__ = ["doubt_fields", "suspend_for_doubts"]


def suspend_for_doubts(run: Run) -> Steps[bool]:
    """Suspend the run, and those it is nested in, where calls of it are in doubt; return True where that is so.

    Nothing is made again before the answer: whatever the agent would do next may build on the call.
    """
    if run.resumption is None or not run.resumption.doubts:
        return False
    first = run.resumption.doubts[0]
    more = f", and {len(run.resumption.doubts) - 1} more" if len(run.resumption.doubts) > 1 else ""
    reason = (
        f"tool {first.tool} (#{first.n}) is in doubt{more}: it began before the run was interrupted, and nobody knows "
        f"whether it happened; look, then: oao resolve {first.id} --landed | --did-not-happen"
    )
    yield from suspending(run, reason, rule="in_doubt", n=first.n)
    return True


def doubt_fields(doubt: Doubt) -> dict[str, Json]:
    """Return a call in doubt for a report: `id`, `tool`, `arguments`, `began_at` (Unix seconds)."""
    return {"id": doubt.id, "tool": doubt.tool, "arguments": doubt.arguments, "began_at": doubt.began_at}
