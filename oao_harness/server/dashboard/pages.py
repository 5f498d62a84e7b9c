"""What every page and every action of the dashboard has in common: who asks, what surrounds it, how errors look."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, cast

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute

from oao_harness.errors import OaoError, StoreError
from oao_harness.server.callers import PERMISSIONS, Caller
from oao_harness.server.dashboard.templating import environment
from oao_harness.server.problems import status_of_error, told
from oao_harness.server.service import Service
from oao_harness.wording.texts import clean

__all__ = ["Page", "fragment", "from_a_page", "may", "message", "page", "service_of"]

_log: Final = logging.getLogger(__name__)
_PAGES: Final = (("runs", "Runs", "/"), ("approvals", "Approvals", "/ui/approvals"), ("fleet", "Fleet", "/ui/fleet"))
_MOST_COUNTED: Final = 99
_HEADINGS: Final = {
    403: "You may not do that",
    404: "There is no such thing",
    409: "Not possible now",
    422: "That is not valid",
    429: "Too much at once",
    503: "Not available now",
}


def service_of(request: Request) -> Service:
    """Return the service behind the application."""
    return cast("Service", request.app.state.service)


def may(caller: Caller) -> dict[str, bool]:
    """Return what a caller may do, by permission: what it may not do is not offered."""
    return {permission: caller.may(permission) for permission in PERMISSIONS}


async def page(request: Request, caller: Caller, template: str, here: str, **values: Any) -> Response:
    """Return a whole page.

    Args:
        request: Who wants it.
        caller: The same, known.
        template: Its name.
        here: Which of the pages in the navigation it belongs to.
        values: What else the template is given.
    """
    service = service_of(request)
    waiting = len(await service.runs(caller, limit=_MOST_COUNTED, status="SUSPENDED"))
    pages = [
        {"name": name, "title": title, "href": href, "count": waiting if name == "approvals" else 0}
        for name, title, href in (*_PAGES, ("policies", "Policies", "/ui/policies"))
    ]
    found = environment().get_template(template)
    around = {"pages": pages, "here": here, "caller": caller, "may": may(caller)}
    return HTMLResponse(found.render({**around, **values}), headers={"Cache-Control": "no-store"})


def fragment(template: str, **values: Any) -> Response:
    """Return a part of a page."""
    return HTMLResponse(environment().get_template(template).render(values), headers={"Cache-Control": "no-store"})


def message(
    told: str, tone: str = "good", *, status: int = 200, href: str = "", link: str = "", detail: str = ""
) -> Response:
    """Return what an action came to, for the notice at the top of each page.

    Args:
        told: One sentence.
        tone: `good`, `bad` or `note`.
        status: Of HTTP.
        href: Where to go on.
        link: What that is called.
        detail: More lines.
    """
    values = {"message": clean(told), "tone": tone, "href": href, "link": link, "detail": clean(detail)}
    found = environment().get_template("message.html").render(values)
    return HTMLResponse(found, status_code=status, headers={"Cache-Control": "no-store"})


def from_a_page(request: Request) -> None:
    """Refuse an action that no page of ours asked for: another site's form cannot set this header.

    Raises:
        HTTPException: It was not ours.
    """
    if request.headers.get("hx-request") != "true":
        raise HTTPException(403, "this is only done from the dashboard's own pages; programs use the API")


class Page(APIRoute):
    """A route whose errors are read by a person: a page, or a line in the notice of one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        inner = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await inner(request)
            except OaoError as error:
                # A denial knows its status itself; who is to log in is sent to the form by the application.
                status = int(getattr(error, "status", 0)) or status_of_error(error)
                if status == 401 and request.headers.get("hx-request") == "true":
                    return Response(status_code=401, headers={"HX-Redirect": "/login"})
                if status == 401:
                    raise
                if status == 500:
                    _log.error("a page failed: %s", error)
                if status == 503 and isinstance(error, StoreError):
                    _log.warning("a page was not made: %s", error)
                return _failed(request, status, told(error))
            except RequestValidationError:
                return _failed(request, 422, "A part of the address or of the form cannot be what it is.")
            except HTTPException as error:
                if error.status_code == 401:
                    raise
                return _failed(request, error.status_code, str(error.detail), error.headers)

        return answer


def _failed(request: Request, status: int, told: str, headers: Mapping[str, str] | None = None) -> Response:
    if request.headers.get("hx-request") == "true":
        return message(told, "bad", status=status)
    values = {
        "pages": [{"name": name, "title": title, "href": href, "count": 0} for name, title, href in _PAGES],
        "here": "",
        "caller": None,
        "heading": _HEADINGS.get(status, "Something went wrong"),
        "message": clean(told),
        "status_code": status,
    }
    found = environment().get_template("error.html").render(values)
    return HTMLResponse(found, status_code=status, headers=dict(headers or {}))
