"""Routes that do not end by themselves: events of a run, rows of the list of runs, all events over a websocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import Header, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import Response
from sse_starlette.sse import EventSourceResponse

from oao_harness.server.callers import Caller
from oao_harness.server.events import event_of
from oao_harness.server.feed import SlowConsumer
from oao_harness.server.models import RunRow
from oao_harness.server.problems import problems
from oao_harness.server.routes.shared import Asked, Reader, RunId, make_router
from oao_harness.server.service import Service

__all__ = ["router"]

router = make_router("streams")

_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Server-sent events.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
_SEND_S: Final = 10.0
"""Seconds that a client may take to read one event."""
_TOO_SLOW: Final = 1013
_GOING_AWAY: Final = 1001
_REFUSED: Final = 1008


@router.get(
    "/runs/{execution_id}/events",
    responses={**_STREAM, **problems(404, 422)},
    response_class=Response,
    summary="Follow the journal of a run",
    description="One event for each record: `id` is its number, `event` its type. A client that comes back with "
    "`Last-Event-ID` misses nothing. Ends with an event `end` when the run is over; stays open while it waits.",
)
async def follow_run(
    execution_id: RunId,
    caller: Reader,
    service: Asked,
    last_event_id: Annotated[int, Header(alias="Last-Event-ID", ge=0, le=2**53)] = 0,
) -> Response:
    await service.records(caller, execution_id, after=2**53)
    return await _stream(service, _records(service, caller, execution_id, last_event_id))


async def _records(service: Service, caller: Caller, execution_id: str, after: int) -> AsyncGenerator[dict[str, Any]]:
    async for records in service.follow(caller, execution_id, after):
        for record in records:
            yield {"id": str(record["seq"]), "event": str(record["type"]), "data": _dumped(record)}
    if not service.is_stopping:
        yield {"event": "end", "data": json.dumps({"execution_id": execution_id})}


@router.get(
    "/events",
    responses={**_STREAM, **problems()},
    response_class=Response,
    summary="Follow the list of runs",
    description="An event `run` with a row of `/runs` whenever one changes.",
)
async def follow_runs(caller: Reader, service: Asked) -> Response:
    return await _stream(service, _rows(service, caller))


async def _rows(service: Service, caller: Caller) -> AsyncGenerator[dict[str, Any]]:
    with suppress(SlowConsumer):
        async for row in service.rows(caller):
            yield {"event": "run", "data": RunRow.of(row).model_dump_json()}


async def _stream(service: Service, events: AsyncGenerator[dict[str, Any]]) -> Response:
    place = service.place_for_stream()

    async def all_of_it() -> AsyncGenerator[dict[str, Any]]:
        with place:
            # So that the client knows at once that it is heard.
            yield {"comment": "oao"}
            async for event in events:
                yield event

    return EventSourceResponse(all_of_it(), ping=max(1, round(service.settings.heartbeat_s)), send_timeout=2 * _SEND_S)


@router.websocket("/ws/events")
async def all_events(
    websocket: WebSocket,
    caller: Reader,
    service: Asked,
    execution_id: Annotated[str, Query(max_length=200, description="Only events of this run.")] = "",
) -> None:
    """Send the events of all runs of this process, or of one, as JSON objects."""
    await websocket.accept()
    reader = asyncio.create_task(_until_gone(websocket))
    sender = asyncio.create_task(_send_all(websocket, service, caller, execution_id))
    try:
        await asyncio.wait({reader, sender}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reader, sender):
            task.cancel()
        await asyncio.gather(reader, sender, return_exceptions=True)


async def _send_all(websocket: WebSocket, service: Service, caller: Caller, execution_id: str) -> None:
    code, why = _GOING_AWAY, "the server is being shut down"
    try:
        with service.place_for_stream():
            async for id_, record in service.events(caller, execution_id):
                text = _dumped(event_of(id_, record))
                await asyncio.wait_for(websocket.send_text(text), _SEND_S)
    except (SlowConsumer, TimeoutError):
        code, why = _TOO_SLOW, "too slow: more events wait than are kept; come again"
    except WebSocketDisconnect:
        return
    with suppress(RuntimeError, TimeoutError):
        await asyncio.wait_for(websocket.close(code, why), _SEND_S)


async def _until_gone(websocket: WebSocket) -> None:
    """Read what the client says, which counts for nothing, until it has gone."""
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.receive()
            if websocket.client_state.name == "DISCONNECTED":
                return


def _dumped(value: object) -> str:
    return json.dumps(value, default=str)
