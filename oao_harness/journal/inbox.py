"""What waits for a person in a store, and how an answer gets into the journal of its run from any process."""

from __future__ import annotations

import json
from typing import Final, cast

from oao_harness.errors import OaoError, UsageError
from oao_harness.journal.codec import decode
from oao_harness.journal.doubts import Doubt, doubts_of
from oao_harness.journal.leases import claim
from oao_harness.journal.questions import Question, Questions, State, answer_fields, is_entitled, principal_to_json
from oao_harness.journal.writer import Writer
from oao_hookspecs import ApprovalAnswer, ApprovalRequest, Approve, Clock, Json, Principal, RunQuery, RunSummary, Store

__all__ = ["answer_question", "doubts_of_runs", "find_doubt", "find_question", "questions_of_runs", "resolve"]

_SHOWN: Final = 4
_SUSPENDED: Final = RunQuery(status="SUSPENDED")


def questions_of_runs(store: Store, time: float) -> list[tuple[RunSummary, Question, State]]:
    """Return the open questions of all suspended runs, the oldest first, each with where it stands.

    Args:
        store: Where the runs are.
        time: Unix seconds.
    """
    found: list[tuple[RunSummary, Question, State]] = []
    for run in store.runs(limit=None, query=_SUSPENDED):
        questions = Questions(store.read(run.execution_id))
        for one in questions.all():
            if not one.used:
                found.append((run, one, one.state(questions.now(time))))
    return sorted(found, key=lambda item: item[1].request.requested_at)


def find_question(store: Store, start: str) -> tuple[RunSummary, Question]:
    """Return the question whose id begins so; of a run's id alone, the one that it waits for.

    Args:
        store: Where the runs are.
        start: Of the id, or of the id of the run; `last` for the newest question.

    Raises:
        UsageError: There is none, or more than one.
    """
    open_ = [(run, question) for run, question, _ in questions_of_runs(store, 0.0)]
    if start == "last" and open_:
        return open_[-1]
    exact = [item for item in open_ if item[1].request.id == start]
    close = exact or [item for item in open_ if _is_meant(item[1].request.id, start)]
    if not close:
        raise UsageError(f"there is no open question {start!r}; `oao approvals` lists them")
    if len(close) > 1:
        ids = ", ".join(item[1].request.id for item in close[:4])
        raise UsageError(f"{start!r} is the start of {len(close)} questions: {ids}; write more of the id")
    return close[0]


def _is_meant(id_: str, start: str) -> bool:
    """Return True for the start of an id, and for the start of the run's id with the question's number."""
    run, _, number = id_.rpartition("-")
    head, _, tail = start.rpartition("-")
    return id_.startswith(start) or (bool(head) and tail == number and run.startswith(head))


def answer_question(
    store: Store, start: str, answer: ApprovalAnswer, clock: Clock, *, exact: bool = False
) -> ApprovalRequest:
    """Write a person's answer into the journal of the suspended run.

    Args:
        store: Where the run is.
        start: Of the question's id.
        answer: What the person says.
        clock: Stamps the record.
        exact: True for the whole id: no other question is meant, also where this one is answered by now.

    Returns:
        The question.

    Raises:
        UsageError: There is no such question, it was answered or has expired, or this person may not answer it.
    """
    run, question = find_question(store, start)
    request = question.request
    if exact and request.id != start:
        raise UsageError(f"{start!r} is open no more; nothing was written")
    refused = is_entitled(request, answer.by)
    if refused is not None:
        raise UsageError(refused)
    if isinstance(answer, Approve) and answer.arguments is not None and request.kind != "tool":
        raise UsageError(f"{request.id} asks about a model call; only the arguments of a tool can be edited")
    # Claimed before it is looked at again: whoever answers, or resumes, at the same time is refused by the store.
    writer = Writer(store, run.execution_id, clock, epoch=claim(store, run.execution_id))
    records = list(store.read(run.execution_id))
    questions = Questions(records)
    now = questions.now(clock.time())
    current = next(one for one in questions.all() if one.request.id == request.id)
    state = current.state(now)
    if state != "pending":
        raise UsageError(f"{request.id} is {state} already; nothing was written")
    earlier = current.last_by(answer.by.id)
    if isinstance(answer, Approve) and isinstance(earlier, Approve) and current.approves_same(answer, earlier):
        raise UsageError(f"{answer.by.id} has answered {request.id} already; {request.needed} different people must")
    writer.continue_after(len(records))
    writer.append("approval.answered", answer_fields(request, answer))
    return request


def doubts_of_runs(store: Store) -> list[Doubt]:
    """Return the calls in doubt of all suspended runs, the oldest first.

    A run whose process died, and that nobody tried to resume, is not looked at: nobody knows yet that it is over.
    """
    runs = store.runs(limit=None, query=_SUSPENDED)
    found = [doubt for run in runs for doubt in doubts_of(list(store.read(run.execution_id)))]
    return sorted(found, key=lambda doubt: doubt.began_at)


def find_doubt(store: Store, start: str) -> Doubt:
    """Return the call in doubt that is meant.

    Args:
        store: Where its run is.
        start: Its id `execution_id#n`, where the run's id may be cut short; that of the run, where it has only one; or
            `last` for the one that began last, of a run that was resumed once.

    Raises:
        UsageError: There is none, or more than one.
    """
    if start == "last" and (newest := doubts_of_runs(store)):
        return newest[-1]
    head, _, number = start.partition("#")
    if number and not number.isdigit():
        raise UsageError(f"{start!r} names no call; write RUN#N, for example {head or '3f2a'}#4")
    runs = store.runs(limit=_SHOWN + 1, query=RunQuery(starts_with=head)) if head else ()
    if not runs:
        raise UsageError(f"there is no run {head!r} in this store; `oao approvals` lists the calls in doubt")
    if len(runs) > 1 and all(run.execution_id != head for run in runs):
        ids = ", ".join(run.execution_id for run in runs[:_SHOWN])
        raise UsageError(f"{head!r} is the start of several runs: {ids}; write more of the id")
    run = next((run for run in runs if run.execution_id == head), runs[0])
    doubts = doubts_of(list(store.read(run.execution_id)))
    close = [doubt for doubt in doubts if not number or doubt.n == int(number)]
    if len(close) == 1:
        return close[0]
    if not doubts:
        raise UsageError(f"no call of run {run.execution_id!r} is in doubt")
    ids = ", ".join(f"{doubt.id} ({doubt.tool})" for doubt in doubts)
    raise UsageError(f"{start!r} is not one call in doubt; there are: {ids}")


def resolve(
    store: Store, start: str, clock: Clock, *, landed: bool, by: Principal, result: Json = None, note: str = ""
) -> Doubt:
    """Write into the journal of a run what became of a call in doubt.

    Args:
        store: Where the run is.
        start: See `find_doubt`.
        clock: Stamps the record.
        landed: True where the call happened.
        by: Who says so.
        result: What it returned, where it happened.
        note: Why.

    Raises:
        UsageError: There is no such call, it is not in doubt, a result is given for a call that did not happen, or the
            result cannot be handed to the agent.
        BusyError: Somebody is at work on the run.
    """
    if not landed and result is not None:
        raise UsageError("a call that did not happen has no result; leave the result out, or say that it landed")
    result = _readable(result)
    doubt = find_doubt(store, start)
    # Claimed before it is looked at again: whoever resumes or answers at the same time is refused by the store.
    epoch = claim(store, doubt.execution_id)
    records = list(store.read(doubt.execution_id))
    if all(one.n != doubt.n for one in doubts_of(records)):
        raise UsageError(f"{doubt.id} is in doubt no more; nothing was written")
    writer = Writer(store, doubt.execution_id, clock, epoch=epoch)
    writer.continue_after(len(records))
    fields: dict[str, Json] = {"n": doubt.n, "landed": landed, "by": principal_to_json(by)}
    if landed:
        fields["res"] = result
    if note:
        fields["note"] = note
    writer.append("resolved", fields)
    return doubt


def _readable(result: Json) -> Json:
    """Return a result as a journal has it; once it is written, a run that cannot read it cannot go on.

    Raises:
        UsageError: It is no JSON, or has a tag of the journal's that nobody knows.
    """
    try:
        written = cast("Json", json.loads(json.dumps(result, allow_nan=False)))
        decode(written)
    except (TypeError, ValueError, RecursionError, OaoError) as error:
        raise UsageError(f"the result cannot be handed to the agent: {error}; give plain JSON") from error
    return written
