"""Errors over HTTP: every one is a problem document (RFC 9457), and every route says which ones it may answer with.

A document tells what was wrong, where and what to do; never a value of the request, a traceback or a path.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from oao_harness.errors import (
    AgentError,
    BusyError,
    ChangedError,
    CodecError,
    ConfigError,
    DamagedError,
    FencedError,
    OaoError,
    StoreError,
    UsageError,
)
from oao_harness.server import refusals

__all__ = ["MEDIA_TYPE", "Problem", "add_handlers", "problem", "problems", "status_of_error", "told"]

_log: Final = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

# The first class that an error is of counts.
_STATUSES: Final[Sequence[tuple[type[Exception], int]]] = (
    (refusals.NotFound, 404),
    (refusals.InvalidRequest, 422),
    (refusals.KeyReused, 422),
    (refusals.ForbiddenError, 403),
    (refusals.WrongState, 409),
    (refusals.InProgress, 409),
    (refusals.TooBusy, 429),
    (refusals.AgentUnavailable, 503),
    (refusals.Stopping, 503),
    (ChangedError, 409),
    (BusyError, 409),
    (FencedError, 409),
    (DamagedError, 500),
    (StoreError, 503),
    (CodecError, 422),
    (AgentError, 503),
    (ConfigError, 422),
    (UsageError, 409),
)
_TITLES: Final = {
    401: "Nobody knows who asks",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Not possible in this state",
    413: "Too large",
    422: "Not a valid request",
    429: "Too many requests",
    500: "The server failed",
    503: "Not available now",
}
_EVERYWHERE: Final = (401, 403, 413, 429, 500, 503)
_SAYS_WHEN: Final = (409, 429, 503)
_LATER_S: Final = 1.0
_MOST_ERRORS: Final = 20
_LONGEST: Final = 1000


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(description="Where it is, for example `body.task`.")
    message: str


class Problem(BaseModel):
    """Why a request was not done (RFC 9457)."""

    type: str = Field(default="about:blank", description="What kind of problem it is.")
    title: str
    status: int
    detail: str = Field(default="", description="What was wrong, and what to do.")
    errors: list[Fault] | None = Field(default=None, description="What is wrong with the request, one by one.")


def problem(
    status: int,
    detail: str = "",
    *,
    errors: Sequence[Mapping[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem document.

    Args:
        status: Of HTTP.
        detail: What was wrong, and what to do.
        errors: `where` and `message` of each fault of the request.
        headers: Further headers.
    """
    title = _TITLES.get(status) or HTTPStatus(status).phrase
    found: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail[:_LONGEST]}
    if errors is not None:
        found["errors"] = list(errors)
    # Escaped: what a request held may be no text.
    return Response(json.dumps(found), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route says about the problems that it may answer with, besides those of every route.

    Args:
        statuses: Of HTTP.
    """
    return {
        status: {
            "description": _TITLES.get(status) or HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            **({"headers": _RETRY_AFTER} if status in _SAYS_WHEN else {}),
        }
        for status in sorted({*statuses, *_EVERYWHERE})
    }


_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds after which to ask again.",
        "schema": {"type": "integer"},
        "required": False,
    }
}


def add_handlers(app: FastAPI) -> None:
    """Let an application answer with problem documents."""
    app.add_exception_handler(OaoError, _said)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)


def status_of_error(error: Exception) -> int:
    """Return the status of HTTP for an error of oao."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


async def _said(_request: Request, error: Exception) -> Response:
    status = status_of_error(error)
    headers: dict[str, str] = {}
    if status in {429, 503} or isinstance(error, BusyError | refusals.InProgress):
        after_s = float(getattr(error, "retry_after_s", getattr(error, "left_s", _LATER_S)))
        headers["Retry-After"] = str(max(1, math.ceil(after_s)))
    if status == 500:
        _log.error("a request failed: %s", error)
        return problem(500, str(error), headers=headers)
    if status == 503 and isinstance(error, StoreError):
        # The message names hosts and paths.
        _log.warning("a request was not done: %s", error)
    return problem(status, told(error), headers=headers)


def told(error: Exception) -> str:
    """Return what a client is told of an error: one line, without names of hosts, processes and files."""
    if isinstance(error, BusyError):
        return f"somebody else is at work on the run; ask again in {max(1, math.ceil(error.left_s))} s"
    if isinstance(error, StoreError) and status_of_error(error) == 503:
        return "the store or the queue cannot be reached; ask again in a moment"
    return str(error).partition("\n")[0]


async def _refused(_request: Request, error: Exception) -> Response:
    found = cast("HTTPException", error)
    detail = found.detail if isinstance(cast("object", found.detail), str) else ""
    if detail == HTTPStatus(found.status_code).phrase:
        detail = ""
    return problem(found.status_code, detail, headers=found.headers)


async def _invalid(_request: Request, error: Exception) -> Response:
    found = cast("RequestValidationError", error).errors()
    errors = [
        {"where": ".".join(str(part) for part in one["loc"])[:200], "message": _message(one)}
        for one in found[:_MOST_ERRORS]
    ]
    first = errors[0] if errors else {"where": "request", "message": "is not valid"}
    return problem(422, f"{first['where']}: {first['message']}", errors=errors)


def _message(one: Mapping[str, Any]) -> str:
    if one["type"] == "json_invalid":
        return str(cast("dict[str, Any]", one.get("ctx") or {}).get("error", "this is not JSON"))[:300]
    return str(one["msg"])[:300]


async def _failed(_request: Request, error: Exception) -> Response:
    _log.error("a request failed", exc_info=error)
    return problem(500, "something went wrong that should not; the server's log says more")
