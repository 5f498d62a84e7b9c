"""Numbers as a person reads them: durations, counts, moments."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from oao_harness.errors import UsageError
from oao_harness.wording.numbers import ago, count, dollars, duration, plural

__all__ = ["ago", "count", "dollars", "duration", "local_time", "moment", "parse_age", "plural"]

_UNITS: Final = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def local_time(at: float, now: float) -> str:
    """Return a moment in local time: the hour of today, the day of this year, else the date.

    Args:
        at: Unix seconds.
        now: Unix seconds.
    """
    moment, today = dt.datetime.fromtimestamp(at), dt.datetime.fromtimestamp(now)
    if moment.date() == today.date():
        return moment.strftime("%H:%M:%S")
    return moment.strftime("%b %d %H:%M" if moment.year == today.year else "%Y-%m-%d")


def parse_age(text: str, option: str) -> float:
    """Return how many seconds a person means by `30d`, `12h`, `90min`, `45s` or `2w`.

    Raises:
        UsageError: It is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    unit = _UNITS.get(found[2]) if found else None
    if found is None or unit is None:
        raise UsageError(f"{option} {text!r} is no time span; write a number and one of {', '.join(_UNITS)}: 30d")
    return float(found[1]) * unit


def moment(text: str, now: float, option: str) -> float:
    """Return the moment that a person means by a date, a date with a time, or a span before now, in Unix seconds.

    Raises:
        UsageError: It is none of these.
    """
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    try:
        return now - parse_age(text, option)
    except UsageError as error:
        raise UsageError(
            f"{option} {text!r} is no moment; write 2026-05-31, 2026-05-31T14:00, or 7d for a week ago"
        ) from error
