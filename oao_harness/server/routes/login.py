"""How a browser logs in: a form that takes an API key once, and a cookie that is none."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, Template, select_autoescape

from oao_harness.server.authentication import authenticator_of
from oao_harness.server.denials import Denial
from oao_harness.server.origins import require_no_other_site

__all__ = ["router"]

router: Final = APIRouter(include_in_schema=False)
_HOME: Final = "/"


@router.get("/login")
async def form(request: Request) -> Response:
    """Show the form; where nobody needs a key, there is nothing to log in to."""
    if authenticator_of(request).is_open:
        return RedirectResponse(_HOME, status_code=303)
    return _page("")


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Begin a session, and open the first page; a wrong key shows the form again, and says why."""
    authenticator = authenticator_of(request)
    if authenticator.is_open:
        return RedirectResponse(_HOME, status_code=303)
    response = RedirectResponse(_HOME, status_code=303)
    try:
        await authenticator.log_in(request, response, await _key_in(request))
    except Denial as error:
        return _page(str(error), error)
    return response


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """End the session of the browser."""
    require_no_other_site(request)
    response = RedirectResponse("/login", status_code=303)
    authenticator_of(request).sessions.end(request, response)
    return response


async def _key_in(request: Request) -> str:
    async with request.form(max_files=0, max_fields=4, max_part_size=4096) as form:
        key = form.get("key")
    return key.strip() if isinstance(key, str) else ""


@functools.cache
def _template() -> Template:
    folder = Path(__file__).parent.parent / "dashboard" / "templates"
    pages = Environment(loader=FileSystemLoader(folder), autoescape=select_autoescape(default=True))
    return pages.get_template("login.html")


def _page(message: str, error: Denial | None = None) -> Response:
    page = _template().render(message=message)
    if error is None:
        return HTMLResponse(page)
    return HTMLResponse(page, error.status, headers=dict(error.headers))
