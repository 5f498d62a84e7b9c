"""What routes share: who asks, the ids in a path, the key of a request."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import Response

from oao_harness.runtime.report import ExecutionReport
from oao_harness.server.authentication import requires
from oao_harness.server.bodies import StrictRoute
from oao_harness.server.callers import Caller
from oao_harness.server.idempotency import Request as KeyedRequest
from oao_harness.server.service import Service

__all__ = [
    "Admin",
    "Approver",
    "Asked",
    "Key",
    "Reader",
    "RunId",
    "Runner",
    "keyed",
    "make_router",
    "reported",
]

Reader: TypeAlias = Annotated[Caller, Depends(requires("read"))]
Runner: TypeAlias = Annotated[Caller, Depends(requires("run"))]
Approver: TypeAlias = Annotated[Caller, Depends(requires("approve"))]
Admin: TypeAlias = Annotated[Caller, Depends(requires("admin"))]

RunId: TypeAlias = Annotated[str, Path(min_length=1, max_length=200, description="Id of the run.")]
Key: TypeAlias = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same request with the same key is done once; the second one is given the same answer.",
    ),
]


async def _service(request: Request) -> Service:
    return request.app.state.service  # type: ignore[no-any-return]


Asked: TypeAlias = Annotated[Service, Depends(_service)]


def make_router(tag: str) -> APIRouter:
    """Return a router whose routes read strict JSON."""
    return APIRouter(route_class=StrictRoute, tags=[tag])


def keyed(caller: Caller, route: str, key: str | None, body: Any) -> KeyedRequest | None:
    """Return the request that a key makes known again; None where it has none."""
    return None if key is None else KeyedRequest.of(caller, route, key, body)


def reported(report: ExecutionReport) -> Response:
    """Return a report as an answer; it is written as JSON once, by the model itself."""
    return Response(report.model_dump_json(), media_type="application/json")
