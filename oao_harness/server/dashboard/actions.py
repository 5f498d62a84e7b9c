"""What a person does by a click: run an agent, answer, resolve, resume, cancel, fork, replay, compare policies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Coroutine, Mapping
from typing import Annotated, Any, Final, cast
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from oao_harness.errors import OaoError
from oao_harness.journal.branching import Edit, new_id
from oao_harness.runtime.report import ExecutionReport
from oao_harness.server.dashboard import judged
from oao_harness.server.dashboard.lists import status_look
from oao_harness.server.dashboard.pages import (
    Page,
    fragment,
    from_a_page,
    message,
    service_of,
)
from oao_harness.server.dashboard.run_page import pretty
from oao_harness.server.dashboard.templating import run_url
from oao_harness.server.idempotency import Request as Begun
from oao_harness.server.refusals import InvalidRequest
from oao_harness.server.routes.shared import Approver, Reader, Runner
from oao_hookspecs import Json

__all__ = ["router"]

_log: Final = logging.getLogger(__name__)
_AT_ONCE_S: Final = 1.0
"""Seconds in which an error is told as the answer of a click; later ones are seen in the run itself."""
_LOOK_S: Final = 0.05
_LONGEST: Final = 200_000
_Text = Annotated[str, Form(max_length=_LONGEST)]
router: Final = APIRouter(
    prefix="/ui",
    route_class=Page,
    include_in_schema=False,
    dependencies=[Depends(from_a_page)],
    default_response_class=Response,
)
_at_work: Final[set[asyncio.Task[ExecutionReport]]] = set()


@router.post("/approvals/{id_}")
async def answer(
    request: Request,
    caller: Approver,
    id_: str,
    *,
    verdict: Annotated[str, Form(pattern="^(approve|reject)$")],
    note: _Text = "",
    arguments: _Text = "",
) -> Response:
    """Answer a question."""
    service = service_of(request)
    if verdict == "reject":
        answered = await service.reject(caller, id_, note.strip())
        told = "Rejected."
    else:
        asked = (await service.approval(caller, id_)).request.arguments
        given = arguments.replace("\r\n", "\n").strip()
        edited = None if given in {"", pretty(dict(asked)).strip()} else _object(given)
        answered = await service.approve(caller, id_, edited, note.strip())
        told = "Approved with your arguments." if edited is not None else "Approved."
    href = run_url(answered.execution_id)
    if answered.goes_on:
        is_there = urlsplit(request.headers.get("hx-current-url", "")).path == href
        return message(f"{told} The run goes on.", href="" if is_there else href, link="Watch it")
    return message(f"{told} The run does not go on yet: {answered.why}.", "note", href=href, link="Open the run")


@router.post("/doubts/{execution_id}/{n}")
async def resolve(
    request: Request,
    caller: Approver,
    execution_id: str,
    n: int,
    *,
    landed: Annotated[str, Form(pattern="^(yes|no)$")],
    result: _Text = "",
    note: _Text = "",
) -> Response:
    """Say what became of a call in doubt."""
    did = landed == "yes"
    value = _json(result, "the result") if did and result.strip() else None
    answered = await service_of(request).resolve(
        caller, f"{execution_id}#{n}", landed=did, result=value, note=note.strip()
    )
    told = f"Noted: call #{n} {'landed' if did else 'did not happen'}."
    goes_on = " The run goes on." if answered.goes_on else f" The run does not go on yet: {answered.why}."
    return message(told + goes_on, href=run_url(answered.execution_id), link="Open the run")


@router.post("/runs")
async def begin(
    request: Request, caller: Runner, *, agent: Annotated[str, Form(min_length=1, max_length=100)], task: _Text = ""
) -> Response:
    """Run an agent, and go to the run's page."""
    service = service_of(request)
    new, asked = new_id(), _task(task.replace("\r\n", "\n").strip())
    running = await _begun(service.run(caller, agent, asked, execution_id=new), new, _LOOK_S)
    until = time.monotonic() + _AT_ONCE_S
    # Whoever asked sees it from its first call on.
    while not await service.exists(caller, new):
        if time.monotonic() > until:
            told = f"All slots of {agent} are taken: the run begins, and is in the list, when one is free."
            return message(told, "note")
        await _told_at_once(running, _LOOK_S)
    return Response(status_code=200, headers={"HX-Redirect": run_url(new)})


@router.post("/runs/{execution_id}/cancel")
async def cancel(request: Request, caller: Runner, execution_id: str) -> Response:
    """End a run."""
    await service_of(request).cancel(caller, execution_id)
    return message("Cancelled.")


@router.post("/runs/{execution_id}/resume")
async def resume(request: Request, caller: Runner, execution_id: str) -> Response:
    """Go on with a run, or drive a dead letter again."""
    await _begun(service_of(request).resume(caller, execution_id), execution_id)
    return message("It goes on.", href=run_url(execution_id), link="Watch it")


@router.post("/runs/{execution_id}/fork")
async def fork(
    request: Request,
    caller: Runner,
    execution_id: str,
    *,
    at: Annotated[int, Form(ge=1)],
    result: _Text = "",
    model: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Run the agent again from the middle of a run, and go to the new run's page."""
    service = service_of(request)
    edit = Edit(_json(result, "the result")) if result.strip() else None
    new = new_id()
    begun = Begun(execution_id=new, digest=f"fork {new}")
    await _begun(service.fork(caller, execution_id, at, edit, model.strip() or None, request=begun), new)
    return Response(status_code=200, headers={"HX-Redirect": run_url(new)})


@router.post("/runs/{execution_id}/replay")
async def replay(request: Request, caller: Runner, execution_id: str) -> Response:
    """Play a run again, and say whether it came out as it was."""
    report = await service_of(request).replay(caller, execution_id)
    word = status_look(report.status).word.lower()
    if report.violation is not None and report.violation.get("rule") == "replay":
        return message("The replay went another way: the agent is not what it was.", "bad", detail=report.error or "")
    told = f"Replayed: {report.total_steps} calls served from the journal, nothing real happened; it {word}."
    return message(told, "good" if report.status == "SUCCESS" else "note", detail=report.error or "")


@router.post("/policies/diff")
async def policy_diff(
    request: Request,
    caller: Reader,
    *,
    before: Annotated[str, Form(max_length=500)],
    after: Annotated[str, Form(max_length=500)],
    limit: Annotated[int, Form(ge=1, le=10_000)] = 200,
) -> Response:
    """Return what another policy would change."""
    found = await service_of(request).policy_diff(caller, [before.strip()], [after.strip()], limit=limit)
    return fragment("policy_diff.html", **judged.policy_diff_values(found))


async def _begun(
    work: Coroutine[Any, Any, ExecutionReport], execution_id: str, at_once_s: float = _AT_ONCE_S
) -> asyncio.Task[ExecutionReport]:
    """Let something run on, whoever looks; raise what is wrong with it at once."""
    task = asyncio.create_task(work, name=f"dashboard {execution_id}")
    _at_work.add(task)
    task.add_done_callback(_at_work.discard)
    task.add_done_callback(lambda done: _log_late(done, execution_id))
    await _told_at_once(task, at_once_s)
    return task


async def _told_at_once(task: asyncio.Task[ExecutionReport], at_once_s: float) -> None:
    done, _ = await asyncio.wait({task}, timeout=at_once_s)
    for one in done:
        one.result()


def _log_late(done: asyncio.Task[ExecutionReport], execution_id: str) -> None:
    if not done.cancelled() and isinstance(error := done.exception(), OaoError):
        _log.warning("run %s does not go on: %s", execution_id, error)


def _json(written: str, what: str) -> Json:
    try:
        return cast("Json", json.loads(written))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{what} is no JSON: {error}; a text needs quotes") from error


def _task(written: str) -> Json:
    """Return an object or a list where that is what was written, else the text itself."""
    if written.startswith(("{", "[")):
        with contextlib.suppress(ValueError, RecursionError):
            return cast("Json", json.loads(written))
    return written


def _object(written: str) -> Mapping[str, Json]:
    found = _json(written, "what you wrote as arguments")
    if not isinstance(found, dict):
        raise InvalidRequest('the arguments must be a JSON object, for example {"amount": 10}')
    return found
