"""Routes about policies."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

from oao_harness.server.models import CoverageAnswer, PolicyDiffRequest, PolicyRow
from oao_harness.server.problems import problems
from oao_harness.server.refusals import ForbiddenError
from oao_harness.server.routes.shared import Asked, Reader, make_router

__all__ = ["router"]

router = make_router("policies")


@router.get("/policies", responses=problems(), summary="List the policies that a request may name")
async def list_policies(caller: Reader, service: Asked) -> list[PolicyRow]:
    return [
        PolicyRow(name=one.name, agents=list(one.agents), is_file=one.is_file, rules=one.rules)
        for one in await service.policies(caller)
    ]


@router.get(
    "/policies/coverage",
    responses=problems(422),
    summary="Show what stored runs have exercised of a policy file",
)
async def show_coverage(
    caller: Reader,
    service: Asked,
    policy: Annotated[str, Query(min_length=1, max_length=500, description="One of the names in /policies.")],
    limit: Annotated[int, Query(ge=1, le=2000, description="How many runs, the newest.")] = 200,
) -> CoverageAnswer:
    return CoverageAnswer.model_validate((await service.coverage(caller, policy, limit)).to_json())


@router.post(
    "/policy/diff",
    responses=problems(422),
    summary="Show what another policy would change for stored runs",
    description="Each recorded call is judged again under both; nothing is run, no code is imported. A document needs "
    "the permission `admin`.",
)
async def diff_policies(body: PolicyDiffRequest, caller: Reader, service: Asked) -> dict[str, Any]:
    if body.document is not None and not caller.may("admin"):
        raise ForbiddenError("a policy of one's own needs the permission admin; name policies that are known here")
    found = await service.policy_diff(
        caller, body.before, body.after, body.document, limit=body.limit, agent=body.agent
    )
    return dict(found)
