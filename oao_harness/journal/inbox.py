"""What waits for a person in a store, and how an answer gets into the journal of its run from any process."""

from __future__ import annotations

from typing import Final

from oao_harness.errors import UsageError
from oao_harness.journal.questions import Question, Questions, State, answer_fields, is_entitled
from oao_harness.journal.writer import Writer
from oao_hookspecs import ApprovalAnswer, ApprovalRequest, Approve, Clock, RunSummary, Store

__all__ = ["answer_question", "find_question", "questions_of_runs"]

_NEWEST: Final = 10_000


def questions_of_runs(store: Store, time: float) -> list[tuple[RunSummary, Question, State]]:
    """Return the open questions of all suspended runs, the oldest first, each with where it stands.

    Args:
        store: Where the runs are.
        time: Unix seconds.
    """
    found: list[tuple[RunSummary, Question, State]] = []
    for run in store.runs(limit=_NEWEST):
        if run.status == "SUSPENDED":
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


def answer_question(store: Store, start: str, answer: ApprovalAnswer, clock: Clock) -> ApprovalRequest:
    """Write a person's answer into the journal of the suspended run.

    Args:
        store: Where the run is.
        start: Of the question's id.
        answer: What the person says.
        clock: Stamps the record.

    Returns:
        The question.

    Raises:
        UsageError: There is no such question, it was answered or has expired, or this person may not answer it.
    """
    run, question = find_question(store, start)
    request = question.request
    refused = is_entitled(request, answer.by)
    if refused is not None:
        raise UsageError(refused)
    if isinstance(answer, Approve) and answer.arguments is not None and request.kind != "tool":
        raise UsageError(f"{request.id} asks about a model call; only the arguments of a tool can be edited")
    # Claimed before it is looked at again: whoever answers, or resumes, at the same time is refused by the store.
    writer = Writer(store, run.execution_id, clock)
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
