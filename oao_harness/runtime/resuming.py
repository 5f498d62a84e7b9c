"""What it takes to go on with a run from its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from oao_harness.errors import ChangedError, RunHalted, UsageError
from oao_harness.journal.chain import intact
from oao_harness.journal.codec import decode, holds_opaque
from oao_harness.journal.questions import Questions
from oao_harness.journal.resumption import Resumption
from oao_harness.journal.secrets import REDACTED
from oao_harness.runtime.fingerprint import changes, fingerprints
from oao_harness.runtime.run import Run
from oao_hookspecs import Json, Record, Store

__all__ = ["decode_task", "reopen", "reopen_nested", "require_same_code", "resumable"]

# So many changed parts are named in a message; who changed more knows.
_MOST_NAMED: Final = 8


def resumable(
    store: Store, execution_id: str, *, part: bool = False, records: Sequence[Record] | None = None
) -> list[Record]:
    """Return the journal of a run that can be resumed.

    Args:
        store: Where it is.
        execution_id: The run.
        part: True where it may be nested in another run, which another worker has.
        records: What it has, where that was read just now; None reads it.

    Raises:
        UsageError: There is no such run, it is over, or it is nested in another one.
        DamagedError: The journal is not what was written.
    """
    found = list(store.read(execution_id)) if records is None else records
    records = list(intact(found, execution_id))
    if not records:
        raise UsageError(f"there is no run {execution_id!r} in this store; `oao runs` lists them")
    over = next((record for record in records if record["type"] == "run.finished"), None)
    if over is not None:
        again = "to try again from where it ended" if over["status"] == "FAILED" else "for another end of it"
        at = "" if over["status"] == "FAILED" else " --at N"
        raise UsageError(
            f"run {execution_id!r} is over ({over['status']}); only a suspended or interrupted run goes on; "
            f"{again}: oao fork {execution_id}{at}"
        )
    parent = records[0].get("parent")
    if parent is not None and not part:
        raise UsageError(f"run {execution_id!r} is nested in run {parent!r}; resume that one")
    return records


def decode_task(started: Record, task: object) -> object:
    """Return the task of a run as it was given.

    Args:
        started: The run's first record.
        task: What the caller says the task is; None takes the recorded one.

    Raises:
        UsageError: It is not in the journal, or not as it was given, and was not given anew.
    """
    if task is not None:
        return task
    recorded = started.get("input", started["task"])
    if holds_opaque(recorded):
        raise UsageError("the task of this run is no plain data, so its journal does not hold it; give it as task=")
    if "redacted" in started and _holds_redacted(recorded):
        raise UsageError(
            f"the task of run {started['execution_id']!r} was redacted: its agent would be asked something else now; "
            "give the task anew, in Python: task="
        )
    return decode(recorded)


def _holds_redacted(value: Json) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_redacted(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return any(_holds_redacted(item) for item in value)
    return isinstance(value, str) and REDACTED in value


def require_same_code(
    records: Sequence[Record], agent: object, tools: Sequence[object], *, policy: str | None = None
) -> None:
    """Refuse to go on with other code or under other policies: what it calls is not what was judged and written.

    Args:
        records: The run's journal. What it was planned with counts, and where it was resumed, what it was then.
        agent: The agent that would go on.
        tools: Tools passed with it.
        policy: Version of the policies that would judge; None does not compare them.

    Raises:
        ChangedError: A part of the agent, a tool or the policy is another one; the message names it.
    """
    planned = [record for record in records if record["type"] in {"plan", "run.resumed"} and "fingerprints" in record]
    if not planned:
        return
    before = cast("Mapping[str, Json]", planned[-1]["fingerprints"])
    changed = changes(before, fingerprints(agent, tools, anew=True))
    found: list[str] = []
    if changed:
        more = f" and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
        found.append(f"the code of {', '.join(changed[:_MOST_NAMED])}{more} is not the one that was interrupted")
    if policy is not None and before.get("policy", policy) != policy:
        found.append("the policy is not the one that the run was judged by")
    if found:
        raise ChangedError(
            f"{', and '.join(found)}; resume with what it was, or say allow_changes=True (--allow-changes)"
        )


def reopen_nested(run: Run) -> None:
    """Let a nested run continue the journal that it left when its outer run was interrupted.

    Raises:
        RunHalted: That journal is not where this run's is: what it did would be done twice.
    """
    records = intact(list(run.store.read(run.execution_id)), run.execution_id)
    if records:
        reopen(run, records)
        return
    reason = (
        f"run {run.execution_id} was nested in this one, and its journal is not in this store; give the inner "
        "orchestrator the store that it had, or none, so that its runs are kept beside the outer one"
    )
    outer = run.parent or run
    outer.halt_now(RunHalted(reason, rule="resume", plugin="oao"))
    raise outer.require_halt()


def reopen(run: Run, records: Sequence[Record]) -> None:
    """Let a run continue the journal that it has: serve what it did, number on, know its questions.

    Args:
        run: Not yet planned; its writer has claimed the journal.
        records: The journal.
    """
    job = cast("Mapping[str, Json]", records[0].get("job") or {})
    run.traceparent = str(job.get("traceparent", ""))
    if len(records) == 1 and job and run.writer is not None:
        # It was queued, and nobody has begun with it.
        run.queued_at = cast("float", records[0]["at"])
        run.writer.continue_after(1)
        return
    resumption = Resumption(records, lambda nested: list(run.store.read(nested)))
    run.resumption = run.replay = run.must_play = resumption
    run.doubts = resumption.doubts
    run.began_in = next((str(one["traceparent"]) for one in records if "traceparent" in one), "")
    run.questions = Questions(records)
    run.continue_after(resumption.last_number)
    run.muted = resumption.is_over
    if run.writer is not None:
        run.writer.continue_after(len(records))
