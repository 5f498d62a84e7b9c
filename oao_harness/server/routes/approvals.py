"""Routes about what waits for a person."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Path

from oao_harness.server.models import (
    AnswerRequest,
    AnswerResult,
    ApprovalRow,
    DoubtRow,
    RejectRequest,
    ResolveRequest,
)
from oao_harness.server.problems import problems
from oao_harness.server.routes.shared import Approver, Asked, Reader, RunId, make_router
from oao_harness.server.service import Service

__all__ = ["router"]

router = make_router("approvals")

QuestionId: TypeAlias = Annotated[str, Path(min_length=1, max_length=250, description="Id of the question.")]


@router.get("/approvals", responses=problems(), summary="List the calls that are held")
async def list_approvals(caller: Reader, service: Asked) -> list[ApprovalRow]:
    return [
        ApprovalRow.of(held.request, held.state, len(held.question.answers)) for held in await service.approvals(caller)
    ]


@router.get("/approvals/{question}", responses=problems(404, 422), summary="Show a question, open or not")
async def show_approval(question: QuestionId, caller: Reader, service: Asked) -> ApprovalRow:
    held = await service.approval(caller, question)
    return ApprovalRow.of(held.request, held.state, len(held.question.answers))


@router.post(
    "/approvals/{question}/approve",
    responses=problems(404, 409, 422),
    summary="Let a held call happen, once",
    description="The run goes on by itself as soon as enough people have said so.",
)
async def approve(
    question: QuestionId, caller: Approver, service: Asked, body: AnswerRequest | None = None
) -> AnswerResult:
    asked = body or AnswerRequest()
    found = await service.approve(caller, question, asked.arguments, asked.note)
    return AnswerResult(execution_id=found.execution_id, goes_on=found.goes_on, why=found.why)


@router.post(
    "/approvals/{question}/reject",
    responses=problems(404, 409, 422),
    summary="Refuse a held call: the run fails",
)
async def reject(
    question: QuestionId, caller: Approver, service: Asked, body: RejectRequest | None = None
) -> AnswerResult:
    found = await service.reject(caller, question, "" if body is None else body.note)
    return AnswerResult(execution_id=found.execution_id, goes_on=found.goes_on, why=found.why)


@router.get("/doubts", responses=problems(), summary="List the calls of which nobody knows whether they happened")
async def list_doubts(caller: Reader, service: Asked) -> list[DoubtRow]:
    return [
        DoubtRow(
            id=one.id,
            execution_id=one.execution_id,
            n=one.n,
            agent=one.agent_name,
            tool=one.tool,
            arguments=dict(one.arguments),
            began_at=one.began_at,
        )
        for one in await service.doubts(caller)
    ]


@router.post(
    "/doubts/{execution_id}/{n}/resolve",
    responses=problems(404, 409, 422),
    summary="Say what became of a call in doubt",
    description="The run goes on by itself when no other call of it is in doubt.",
)
async def resolve_doubt(
    execution_id: RunId,
    n: Annotated[int, Path(ge=1, le=2**31, description="Number of the call.")],
    body: ResolveRequest,
    caller: Approver,
    service: Asked,
) -> AnswerResult:
    return await _resolved(service, caller, f"{execution_id}#{n}", body)


async def _resolved(service: Service, caller: Approver, id_: str, body: ResolveRequest) -> AnswerResult:
    found = await service.resolve(caller, id_, landed=body.landed, result=body.result, note=body.note)
    return AnswerResult(execution_id=found.execution_id, goes_on=found.goes_on, why=found.why)
