"""The pages of the dashboard, and the fragments that they fetch. What they show is made elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles

from oao_harness.journal.timeline import Timeline
from oao_harness.server.callers import Caller
from oao_harness.server.dashboard import actions, judged, live
from oao_harness.server.dashboard.details import detail_of
from oao_harness.server.dashboard.lists import STATUSES, RunRow, job_row, run_row, workers_of
from oao_harness.server.dashboard.pages import Page, fragment, may, page, service_of
from oao_harness.server.dashboard.rows import PAGE, window_of
from oao_harness.server.dashboard.run_page import question_view
from oao_harness.server.dashboard.snapshot import Snapshot
from oao_harness.server.dashboard.templating import STATIC, environment, run_url
from oao_harness.server.refusals import NotFound
from oao_harness.server.routes.shared import Reader
from oao_harness.server.service import Service

__all__ = ["add_dashboard"]

_ROWS: Final = 50
_JOBS: Final = 50
_OPEN: Final = ("RUNNING", "QUEUED", "SUSPENDED")
_FLEET_S: Final = 2.0
_INBOX_S: Final = 5.0
_router: Final = APIRouter(route_class=Page, include_in_schema=False, default_response_class=Response)


def add_dashboard(app: FastAPI) -> None:
    """Let an application show the dashboard; its service is `app.state.service`."""
    app.include_router(_router)
    app.include_router(actions.router)
    app.mount(STATIC, StaticFiles(packages=[("oao_harness.server.dashboard", "static")]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filters:
    """Which runs are shown."""

    status: str = ""
    agent: str = ""
    starts_with: str = ""
    page: int = 1

    @property
    def query(self) -> str:
        given = {"status": self.status, "agent": self.agent, "starts_with": self.starts_with}
        return urlencode({key: value for key, value in given.items() if value})

    @property
    def is_empty(self) -> bool:
        return not self.query and self.page == 1


async def _rows(service: Service, caller: Caller, filters: _Filters) -> tuple[list[RunRow], bool]:
    """Return the rows of a page of the list, and whether there are more."""
    found = await service.runs(
        caller,
        limit=_ROWS + 1,
        offset=(filters.page - 1) * _ROWS,
        status=filters.status,
        agent=filters.agent,
        starts_with=filters.starts_with,
    )
    return [run_row(one) for one in found[:_ROWS]], len(found) > _ROWS


def _table(
    request: Request, service: Service, filters: _Filters, rows: Sequence[RunRow], fresh: set[str]
) -> Mapping[str, Any]:
    return {
        "runs": rows,
        "fresh": fresh,
        "filters": filters,
        "agents": service.agents.names(),
        "base_url": str(request.base_url).rstrip("/"),
    }


@_router.get("/")
async def runs(
    request: Request,
    caller: Reader,
    *,
    status: str = "",
    agent: str = "",
    starts_with: str = "",
    number: Annotated[int, Query(alias="page", ge=1, le=100_000)] = 1,
) -> Response:
    """Show the list of runs."""
    service = service_of(request)
    filters = _Filters(status=status, agent=agent.strip(), starts_with=starts_with.strip(), page=number)
    rows, has_more = await _rows(service, caller, filters)
    values = _table(request, service, filters, rows, set())
    seen = live.digest_of(environment().get_template("runs_table.html").render(values))
    return await page(request, caller, "runs.html", "runs", **values, statuses=STATUSES, has_more=has_more, seen=seen)


@_router.get("/ui/live")
async def runs_live(
    request: Request, caller: Reader, *, status: str = "", agent: str = "", starts_with: str = "", seen: str = ""
) -> Response:
    """Tell of the first page of the list as it changes."""
    service, filters = service_of(request), _Filters(status=status, agent=agent, starts_with=starts_with)
    known: set[str] | None = None
    shown: dict[str, str] = {}

    async def render() -> Mapping[str, str]:
        nonlocal known
        rows, _ = await _rows(service, caller, filters)
        ids = {one.execution_id for one in rows}
        fresh: set[str] = ids - (ids if known is None else known)
        known = ids | (known or set())
        plain = environment().get_template("runs_table.html").render(_table(request, service, filters, rows, set()))
        if shown.get("plain") == live.digest_of(plain):
            return {"runs": shown["markup"]}
        marked = _table(request, service, filters, rows, fresh)
        shown["plain"] = live.digest_of(plain)
        shown["markup"] = environment().get_template("runs_table.html").render(marked)
        return {"runs": shown["markup"]}

    seen = "" if "last-event-id" in request.headers else seen
    return live.streamed(service, live.regions(service.rows(caller), render, seen=seen))


@_router.get("/ui/runs/{execution_id}")
async def run(
    request: Request, caller: Reader, execution_id: str, first: Annotated[int | None, Query(ge=0)] = None
) -> Response:
    """Show one run."""
    service = service_of(request)
    records = await service.records(caller, execution_id)
    snapshot = await service.asked(Snapshot.of, service.store, records)
    values = await service.asked(snapshot.values, may(caller), first)
    return await page(request, caller, "run.html", "runs", **values, is_windowed=first is not None)


@_router.get("/ui/runs/{execution_id}/live")
async def run_live(
    request: Request, caller: Reader, execution_id: str, after: Annotated[int, Query(ge=0)] = 0
) -> Response:
    """Tell of one run as it goes on."""
    service = service_of(request)
    # Refused before the stream begins, where it is unknown.
    await service.records(caller, execution_id, after=2**53)
    is_again = "last-event-id" in request.headers
    events = live.run(service, caller, execution_id, after=after, is_again=is_again)
    return live.streamed(service, events)


@_router.get("/ui/runs/{execution_id}/rows")
async def run_rows(
    request: Request, caller: Reader, execution_id: str, first: Annotated[int, Query(ge=0)] = 0
) -> Response:
    """Return further lines of a run's timeline."""
    timeline = await service_of(request).timeline(caller, execution_id)
    window = window_of(timeline, first, timeline.running_s)
    return fragment("run_rows.html", window=window, url=run_url(execution_id), page_size=PAGE)


@_router.get("/ui/runs/{execution_id}/calls/{n}")
async def call(request: Request, caller: Reader, execution_id: str, n: int) -> Response:
    """Return everything about one call."""
    records = await service_of(request).records(caller, execution_id)
    detail = detail_of(Timeline.of(records), n)
    if detail is None:
        raise NotFound(f"run {execution_id!r:.120} has no call #{n}")
    is_outer = records[0].get("parent") is None
    return fragment("call.html", call=detail, url=run_url(execution_id), may=may(caller), is_outer=is_outer)


@_router.get("/ui/runs/{execution_id}/diff")
async def diff(request: Request, caller: Reader, execution_id: str, other: str) -> Response:
    """Show what a run does otherwise than another, usually the one that it was forked from."""
    found = await service_of(request).diff(caller, other, execution_id)
    return await page(
        request, caller, "diff.html", "runs",
        execution_id=execution_id, other=other, url=run_url(execution_id), **judged.changes_values(found),
    )  # fmt: skip


async def _inbox(service: Service, caller: Caller) -> Mapping[str, Any]:
    held, doubts = await asyncio.gather(service.approvals(caller), service.doubts(caller))
    questions = [question_view(one.question, one.state) for one in held]
    return {"questions": questions, "doubts": doubts, "may": may(caller), "head": {"violation": {}, "error": ""}}


@_router.get("/ui/approvals")
async def approvals(request: Request, caller: Reader) -> Response:
    """Show everything that waits for a person."""
    values = await _inbox(service_of(request), caller)
    seen = live.digest_of(environment().get_template("inbox.html").render(values))
    return await page(request, caller, "approvals.html", "approvals", **values, seen=seen)


@_router.get("/ui/approvals/live")
async def approvals_live(request: Request, caller: Reader, seen: str = "") -> Response:
    """Tell of what waits for a person."""
    service = service_of(request)

    async def render() -> Mapping[str, str]:
        return {"inbox": environment().get_template("inbox.html").render(await _inbox(service, caller))}

    seen = "" if "last-event-id" in request.headers else seen
    events = live.regions(service.rows(caller), render, seen=seen, again_s=_INBOX_S)
    return live.streamed(service, events)


async def _fleet(service: Service, caller: Caller) -> Mapping[str, Any]:
    stats = await service.queue(caller)
    dead, *others = [await service.job_list(caller, status, _JOBS) for status in ("DEAD", *_OPEN)]
    jobs = sorted((job for found in others for job in found), key=lambda job: -job.queued_at)
    tiles = [
        ("Workers at your jobs" if caller.tenant else "Workers", len(stats.workers), ""),
        ("Queued", stats.queued, ""),
        ("Delayed", stats.delayed, "wait"),
        ("Running", stats.running, "run"),
        ("Retries", sum(job.retries for job in (*jobs, *dead)), "wait"),
        ("Dead letters", len(dead), "dead"),
    ]
    return {
        "tiles": tiles,
        "workers": workers_of(stats),
        "dead": [job_row(job) for job in dead],
        "open": [job_row(job) for job in jobs[:_JOBS]],
        "may": may(caller),
        "tenant": caller.tenant,
    }


@_router.get("/ui/fleet")
async def fleet(request: Request, caller: Reader) -> Response:
    """Show workers, queue and dead letters."""
    values = await _fleet(service_of(request), caller)
    return await page(request, caller, "fleet.html", "fleet", **values)


@_router.get("/ui/fleet/live")
async def fleet_live(request: Request, caller: Reader) -> Response:
    """Tell of the fleet as it changes."""
    service = service_of(request)

    async def render() -> Mapping[str, str]:
        return {"fleet": environment().get_template("fleet_body.html").render(await _fleet(service, caller))}

    events = live.regions(service.rows(caller), render, seen="", again_s=_FLEET_S)
    return live.streamed(service, events)


@_router.get("/ui/policies")
async def policies(request: Request, caller: Reader) -> Response:
    """Show which policies hold for whom; what runs exercised of them is fetched after."""
    service = service_of(request)
    found = await service.policies(caller)
    agents = [{"name": one.name, "policies": one.policies(), "source": one.source} for one in service.agents]
    files = [one.name for one in found if one.is_file]
    known = [one.name for one in found]
    return await page(request, caller, "policies.html", "policies", agents=agents, policies=files, known=known)


@_router.get("/ui/policies/coverage")
async def coverage(request: Request, caller: Reader, policy: str) -> Response:
    """Return what stored runs have exercised of a policy."""
    return fragment(
        "coverage.html", coverage=judged.coverage_values(await service_of(request).coverage(caller, policy))
    )
