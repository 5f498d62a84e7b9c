"""Routes about the server itself: is it well, which agents has it, what does it count."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from oao_harness.server.models import AgentRow
from oao_harness.server.problems import problem, problems
from oao_harness.server.refusals import ForbiddenError
from oao_harness.server.routes.shared import Asked, Reader, make_router

__all__ = ["router"]

router = make_router("operations")


@router.get("/agents", responses=problems(), summary="List the agents that may be run")
async def list_agents(caller: Reader, service: Asked) -> list[AgentRow]:
    rows: list[AgentRow] = []
    for one in service.agents:
        admission = service.admission(one)
        rows.append(
            AgentRow(
                name=one.name,
                source=one.source,
                policies=list(one.policies()),
                slots=admission.slots,
                # How busy it is tells of others' runs.
                taken=None if caller.tenant else admission.taken,
                waiting=None if caller.tenant else admission.waiting,
            )
        )
    return rows


@router.get(
    "/healthz",
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
    response_class=Response,
    summary="Is the process alive?",
)
async def is_alive() -> Response:
    return Response('{"status":"ok"}', media_type="application/json")


@router.get(
    "/readyz",
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}, **problems(503)},
    response_class=Response,
    summary="Can it do its work: are store and queue reachable?",
)
async def is_ready(service: Asked) -> Response:
    wrong = await service.is_ready()
    if wrong:
        # What exactly is wrong may name hosts; the log says it.
        return problem(503, f"not ready: {', '.join(sorted(wrong))}", headers={"Retry-After": "1"})
    return Response('{"status":"ready"}', media_type="application/json")


@router.get(
    "/metrics",
    responses={
        200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(),
    },
    response_class=Response,
    summary="Show what is counted, for Prometheus",
    description="Counts the runs of all tenants, so a caller of one tenant may not see it.",
)
async def show_metrics(caller: Reader, service: Asked, request: Request) -> Response:
    if caller.tenant:
        raise ForbiddenError("the metrics count the runs of all tenants; ask with a key that has no tenant")
    page, content_type = await service.asked(service.exposition.answer, request.headers.get("accept", ""))
    return Response(page, headers={"Content-Type": content_type})
