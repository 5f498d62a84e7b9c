"""Templates with their filters. What an agent said is escaped in every one of them, and never becomes markup."""

from __future__ import annotations

import datetime as dt
import functools
import time
import zlib
from importlib.metadata import version
from typing import Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from oao_harness.server.dashboard.lists import status_look
from oao_harness.server.dashboard.run_page import pretty
from oao_harness.wording.numbers import count
from oao_harness.wording.texts import one_line

__all__ = ["STATIC", "environment", "run_url"]

STATIC: Final = "/ui/static"
"""Where style sheet and scripts are."""


def run_url(execution_id: str) -> str:
    """Return the path of a run's page."""
    return f"/ui/runs/{quote(execution_id, safe='')}"


@functools.cache
def environment() -> Environment:
    """Return the templates, ready to be rendered."""
    found = Environment(
        loader=PackageLoader("oao_harness.server.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {
        "count": lambda number: count(int(number)),
        "iso": _iso,
        "key": _key,
        "line": one_line,
        "local": _told,
        "look": status_look,
        "pretty": lambda value: pretty(dict(value)),
        "quote": lambda text: quote(text, safe=""),
        "run_url": run_url,
        "short": lambda execution_id: one_line(execution_id)[:8],
    }
    found.globals |= {"static": STATIC, "version": version("oao-harness")}
    return found


def _key(name: str) -> str:
    """Return what names a thing in a page, whatever characters its own name has."""
    return f"{zlib.crc32(name.encode('utf-8', 'backslashreplace')):08x}"


def _iso(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _told(at: float) -> str:
    """Return how long ago a moment is, or how far ahead, as the page's script tells it too."""
    seconds = time.time() - at
    if 0 <= seconds < 5:
        return "just now"
    return f"in {_span(-seconds)}" if seconds < 0 else f"{_span(seconds)} ago"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
