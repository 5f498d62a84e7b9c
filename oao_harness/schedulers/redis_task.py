"""The one task that every job is to Docket: admitted by limits, delivered by a worker, handed back when not done."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, cast

from docket import ConcurrencyLimit, CurrentExecution, CurrentWorker, Worker
from docket.dependencies import Dependency, FailureHandler, TaskOutcome
from docket.dependencies import current_execution as _current_execution
from docket.dependencies import current_worker as _current_worker
from docket.execution import Execution

from oao_hookspecs.schedulers import Job, Later

__all__ = [
    "Admission",
    "Delivering",
    "HandBack",
    "NotDoneError",
    "failed",
    "hand_back",
    "handed_back_after",
    "oao_job",
]

_log: Final = logging.getLogger(__name__)
_AFTER_ERROR_S: Final = 1.0


class NotDoneError(Exception):
    """The job is not done: hand it back. An attempt that must not acknowledge its entry ends with this.

    Args:
        after_s: Seconds until it is delivered again.
    """

    def __init__(self, after_s: float) -> None:
        super().__init__(f"again in {after_s:g} s")
        self.after_s = after_s


class Delivering(Protocol):
    """What the task asks of the worker that runs it."""

    def limits_of(self, arguments: dict[str, Any]) -> list[tuple[str, int]]:
        """Return names of arguments, and how many jobs with the same value may run at once."""
        ...

    async def deliver(self, execution: Execution) -> None:
        """Have a job done; raise NotDoneError where it is not."""
        ...


class HandBack(FailureHandler["HandBack"]):
    """Puts a job that is not done back, in the same step in which its entry is acknowledged.

    Not Docket's Retry: that one logs each as an error.
    """

    async def __aenter__(self) -> HandBack:
        return self

    async def handle_failure(self, execution: Execution, outcome: TaskOutcome) -> bool:
        """Schedule the job again; see `hand_back`."""
        error = outcome.exception
        await hand_back(execution, error.after_s if isinstance(error, NotDoneError) else _AFTER_ERROR_S)
        return True


async def hand_back(execution: Execution, after_s: float) -> None:
    """Queue a job again and acknowledge its entry, in one step; one whose record is newer is left alone."""
    execution.when = datetime.now(UTC) + timedelta(seconds=after_s)
    execution.attempt += 1
    await execution.schedule(
        replace=True, reschedule_message=execution.message_id, expected_generation=execution.generation
    )


def failed(job: Job, error: BaseException, attempt: int, redelivery_s: float) -> Later:
    """Say that a handler raised, and return when its job is delivered again: what is left open must be."""
    after_s = min(2.0**attempt, redelivery_s)
    _log.error("run %s: the handler failed; again in %g s", job.execution_id, after_s, exc_info=error)
    return Later(after_s=after_s, reason=f"{type(error).__name__}: {error}")


def handed_back_after(job: Job, word: str, answer: Later | None, redelivery_s: float) -> float | None:
    """Return the seconds after which an ended delivery is delivered again; None where its entry is acknowledged.

    Args:
        job: What was delivered.
        word: What the set of open jobs said, see `OpenJobs.end`.
        answer: What its handler said.
        redelivery_s: Seconds after which a worker that is not heard of loses its jobs.
    """
    if word == "TAKEN":
        # Its acknowledgement would be the new owner's, whose death would lose the job.
        return redelivery_s
    if word == "AGAIN":
        return 0.0
    if word == "LATER" and answer is not None:
        _log.info("run %s: again in %g s: %s", job.execution_id, answer.after_s, answer.reason)
        return max(0.0, answer.after_s)
    return None


class Admission(Dependency["Admission"]):
    """Holds a job that a limit keeps from running: parked at the server, and woken when another one ends."""

    # What Docket asks for once per worker, of a class that parks jobs.
    worker_lifecycle = ConcurrencyLimit.worker_lifecycle

    async def __aenter__(self) -> Admission:
        worker = cast("Delivering", _current_worker.get())
        for argument, most in worker.limits_of(_current_execution.get().kwargs):
            # It frees its slot by itself when the attempt ends.
            await ConcurrencyLimit(argument, most).__aenter__()
        return self


async def oao_job(  # noqa: PLR0917 - the arguments are an entry's
    execution_id: str,
    agent: str,
    tenant: str,
    nested: bool,
    priority: str,
    admission: Admission = Admission(),  # noqa: B008 - how Docket asks for what it puts in
    hand_back: HandBack = HandBack(),  # noqa: B008
    execution: Execution = CurrentExecution(),  # noqa: B008
    worker: Worker = CurrentWorker(),  # noqa: B008
) -> None:
    """Deliver a job. The arguments are there for limits; what is delivered is read from the set of open jobs."""
    del execution_id, agent, tenant, nested, priority, admission, hand_back
    await cast("Delivering", worker).deliver(execution)
