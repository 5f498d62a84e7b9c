"""Routes about runs: begin them, look at them, go on with them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Query
from fastapi.responses import Response

from oao_harness.fleet.status import report_of, status_of
from oao_harness.journal.branching import Edit
from oao_harness.journal.changes import changes_as_json
from oao_harness.runtime.report import ExecutionReport
from oao_harness.server.models import (
    DeadlineRequest,
    ForkRequest,
    RunDetail,
    RunMultiRequest,
    RunPage,
    RunRequest,
    RunRow,
)
from oao_harness.server.problems import problems
from oao_harness.server.routes.shared import Asked, Key, Reader, RunId, Runner, keyed, make_router, reported

__all__ = ["router"]

router = make_router("runs")

_REPORT: Final[dict[int | str, dict[str, Any]]] = {200: {"model": ExecutionReport, "description": "The report."}}
_REPORTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": dict[str, ExecutionReport], "description": "The report of each agent."}
}
_WAITS: Final = "`SUSPENDED` says that it waits for a person."


@router.post(
    "/run",
    responses={**_REPORT, **problems(404, 409, 422)},
    response_class=Response,
    summary="Run a registered agent",
    description="Answers with the report when the run is over. A run that failed is a 200 with a report that says why. "
    f"{_WAITS} Where the client leaves, the run goes on; its report is at `/runs/{{id}}`.",
)
async def run(body: RunRequest, caller: Runner, service: Asked, key: Key = None) -> Response:
    request = None if key is None else keyed(caller, "/run", key, body.model_dump())
    report = await service.run(
        caller, body.agent, body.task, policy=body.policy, deadline_s=body.deadline_s, request=request
    )
    return reported(report)


@router.post(
    "/run-multi",
    responses={**_REPORTS, **problems(404, 409, 422)},
    response_class=Response,
    summary="Run several registered agents side by side",
    description="Each is a run of its own; one that fails stops none of the others.",
)
async def run_multi(body: RunMultiRequest, caller: Runner, service: Asked, key: Key = None) -> Response:
    found = await service.run_multi(
        caller,
        body.agents,
        body.task,
        policy=body.policy,
        max_concurrency=body.max_concurrency,
        deadline_s=body.deadline_s,
        request=keyed(caller, "/run-multi", key, body.model_dump()),
    )
    parts = ",".join(f"{json.dumps(name)}:{report.model_dump_json()}" for name, report in found.items())
    return Response(f"{{{parts}}}", media_type="application/json")


@router.get("/runs", responses=problems(422), summary="List runs, the newest first")
async def list_runs(
    caller: Reader,
    service: Asked,
    limit: Annotated[int, Query(ge=1, le=500, description="How many at most.")] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31, description="How many of the newest to leave out.")] = 0,
    status: Annotated[str, Query(pattern="^(QUEUED|RUNNING|SUSPENDED|DEAD|SUCCESS|FAILED)?$")] = "",
    *,
    agent: Annotated[str, Query(max_length=200, description="Only runs of this agent.")] = "",
    starts_with: Annotated[str, Query(max_length=200, description="Only runs whose id begins so.")] = "",
    nested: Annotated[bool, Query(description="Show runs too that are nested in another one.")] = False,
) -> RunPage:
    rows = await service.runs(
        caller,
        limit=limit + 1,
        offset=offset,
        status=status,
        agent=agent,
        starts_with=starts_with,
        outer=not nested,
    )
    next_: str | None = None
    if len(rows) > limit:
        asked = {"status": status, "agent": agent, "starts_with": starts_with, "nested": "true" if nested else ""}
        page = {"limit": limit, "offset": offset + limit, **{name: value for name, value in asked.items() if value}}
        next_ = f"/runs?{urlencode(page)}"
    return RunPage(runs=[RunRow.of(row) for row in rows[:limit]], next=next_)


@router.get("/runs/{execution_id}", responses=problems(404, 422), summary="Show a run")
async def show_run(execution_id: RunId, caller: Reader, service: Asked) -> RunDetail:
    records = await service.records(caller, execution_id)
    first, status = records[0], status_of(records)
    return RunDetail.model_validate(
        {
            "execution_id": execution_id,
            "agent": status.agent,
            "status": status.status,
            "task": first.get("task"),
            "principal": first.get("principal"),
            "parent": first.get("parent"),
            "forked": first.get("forked"),
            "report": report_of(records),
        }
    )


@router.get(
    "/runs/{execution_id}/journal",
    responses={
        200: {
            "description": "The records: one JSON object a line.",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
        **problems(404, 422),
    },
    response_class=Response,
    summary="Show the journal of a run",
)
async def show_journal(
    execution_id: RunId,
    caller: Reader,
    service: Asked,
    after: Annotated[int, Query(ge=0, le=2**53, description="Number of the record behind which to begin.")] = 0,
) -> Response:
    records = await service.records(caller, execution_id, after)
    lines = "".join(f"{json.dumps(record, ensure_ascii=False, default=str)}\n" for record in records)
    return Response(lines.encode("utf-8", "backslashreplace"), media_type="application/x-ndjson")


@router.get("/runs/{execution_id}/diff/{other}", responses=problems(404, 409, 422), summary="Compare two runs")
async def diff_runs(execution_id: RunId, other: RunId, caller: Reader, service: Asked) -> dict[str, Any]:
    return dict(changes_as_json(await service.diff(caller, execution_id, other)))


@router.post(
    "/runs/{execution_id}/resume",
    responses={**_REPORT, **problems(404, 409, 422)},
    response_class=Response,
    summary="Go on with a run that was suspended or interrupted",
    description=f"Its finished calls are served, the next one is made. {_WAITS} A job goes back to its queue.",
)
async def resume_run(
    execution_id: RunId, caller: Runner, service: Asked, body: DeadlineRequest | None = None, key: Key = None
) -> Response:
    route = f"/runs/{execution_id}/resume"
    deadline_s = None if body is None else body.deadline_s
    request = keyed(caller, route, key, deadline_s)
    return reported(await service.resume(caller, execution_id, deadline_s=deadline_s, request=request))


@router.post(
    "/runs/{execution_id}/fork",
    responses={**_REPORT, **problems(404, 409, 422)},
    response_class=Response,
    summary="Run an agent again from the middle of a run, as a new run",
    description="The calls before `at` are served from the journal: nothing of them fires again.",
)
async def fork_run(
    execution_id: RunId, caller: Runner, service: Asked, body: ForkRequest | None = None, key: Key = None
) -> Response:
    asked = body or ForkRequest()
    report = await service.fork(
        caller,
        execution_id,
        asked.at,
        Edit(asked.result) if "result" in asked.model_fields_set else None,
        asked.model,
        deadline_s=asked.deadline_s,
        request=keyed(caller, f"/runs/{execution_id}/fork", key, asked.model_dump(exclude_unset=True)),
    )
    return reported(report)


@router.post(
    "/runs/{execution_id}/replay",
    responses={**_REPORT, **problems(404, 409, 422)},
    response_class=Response,
    summary="Play a run again: no model is asked, no tool runs",
    description="The policies judge every call as in a live run. It is kept nowhere.",
)
async def replay_run(
    execution_id: RunId, caller: Runner, service: Asked, body: DeadlineRequest | None = None, key: Key = None
) -> Response:
    deadline_s = None if body is None else body.deadline_s
    request = keyed(caller, f"/runs/{execution_id}/replay", key, deadline_s)
    return reported(await service.replay(caller, execution_id, deadline_s=deadline_s, request=request))


@router.post(
    "/runs/{execution_id}/cancel",
    responses={**_REPORT, **problems(404, 409, 422)},
    response_class=Response,
    summary="End a run that is at work or waits",
)
async def cancel_run(execution_id: RunId, caller: Runner, service: Asked) -> Response:
    return reported(await service.cancel(caller, execution_id))
