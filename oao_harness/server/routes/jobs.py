"""Routes about jobs: runs that wait for a worker."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import Query

from oao_harness.fleet.status import report_of
from oao_harness.server.models import JobRequest, JobRow, JobSubmitted, QueueRow
from oao_harness.server.problems import problems
from oao_harness.server.routes.shared import Asked, Key, Reader, RunId, Runner, keyed, make_router

__all__ = ["router"]

router = make_router("jobs")


@router.post(
    "/jobs",
    status_code=202,
    responses=problems(404, 409, 422),
    summary="Queue a run of a registered agent",
    description="When this answers, the job is not lost any more. `/jobs/{id}?wait_s=` waits for its report.",
)
async def submit_job(body: JobRequest, caller: Runner, service: Asked, key: Key = None) -> JobSubmitted:
    id_ = await service.submit(
        caller,
        body.agent,
        body.task,
        policy=body.policy,
        priority=body.priority,
        delay_s=body.delay_s,
        retries=body.retries,
        request=keyed(caller, "/jobs", key, body.model_dump()),
    )
    return JobSubmitted(execution_id=id_)


@router.get("/jobs", responses=problems(422), summary="List jobs, the newest first; `DEAD` for dead letters")
async def list_jobs(
    caller: Reader,
    service: Asked,
    status: Annotated[str, Query(pattern="^(QUEUED|RUNNING|SUSPENDED|DEAD|SUCCESS|FAILED)?$")] = "",
    limit: Annotated[int, Query(ge=1, le=500, description="How many at most.")] = 50,
    offset: Annotated[int, Query(ge=0, le=100_000, description="How many of the newest to leave out.")] = 0,
) -> list[JobRow]:
    return [JobRow.of(one) for one in await service.job_list(caller, status, limit, offset)]


@router.get("/queue", responses=problems(), summary="Show what is in the queue, and who works")
async def show_queue(caller: Reader, service: Asked) -> QueueRow:
    found = await service.queue(caller)
    return QueueRow(
        queued=found.queued,
        delayed=found.delayed,
        running=found.running,
        workers=[asdict(one) for one in found.workers],
    )


@router.get(
    "/jobs/{execution_id}",
    responses=problems(404, 422),
    summary="Show how far a job is, or wait for its report",
    description="With `wait_s` it answers as soon as the job is over or waits for a person; it holds no worker.",
)
async def show_job(
    execution_id: RunId,
    caller: Reader,
    service: Asked,
    wait_s: Annotated[float, Query(ge=0, le=60, description="Seconds to wait at most.")] = 0.0,
) -> JobRow:
    if wait_s:
        await service.wait(caller, execution_id, wait_s)
    status = await service.job(caller, execution_id)
    at_rest = status.is_over or status.is_waiting
    report = report_of(await service.records(caller, execution_id)) if at_rest else None
    return JobRow.of(status, report)


@router.post("/jobs/{execution_id}/cancel", responses=problems(404, 409, 422), summary="End a job")
async def cancel_job(execution_id: RunId, caller: Runner, service: Asked) -> JobRow:
    return JobRow.of(await service.cancel_job(caller, execution_id))


@router.post(
    "/jobs/{execution_id}/retry",
    responses=problems(404, 409, 422),
    summary="Queue a dead letter again, or a job that a person has answered",
)
async def retry_job(execution_id: RunId, caller: Runner, service: Asked) -> JobRow:
    return JobRow.of(await service.redrive(caller, execution_id))
