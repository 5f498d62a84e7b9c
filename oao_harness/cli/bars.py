"""Calls as bars over the running time of a run: what took long, and what ran side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import symbol
from oao_harness.journal.timeline import Moment

__all__ = ["bars_of", "fitting_width"]

_LEAST: Final = 10
_MOST: Final = 40
_STYLES: Final = {"model": "cyan", "tool": "magenta", "http": "blue"}


def fitting_width(left: int) -> int:
    """Return how wide bars are in what is left of a line; 0 where there is no room for them."""
    return min(left, _MOST) if left >= _LEAST else 0


def bars_of(on: Console, moments: Sequence[Moment], width: int, total_s: float) -> list[Text]:
    """Return a bar for each call, all on one scale; nothing for what is no call, was denied, or took no time at all.

    Args:
        on: Where they will be printed.
        moments: From a `Timeline`.
        width: Of the scale, in cells.
        total_s: Seconds that the scale stands for.
    """
    return [_bar(on, moment, width, total_s) for moment in moments]


def _bar(on: Console, moment: Moment, width: int, total_s: float) -> Text:
    ended = moment.end_s
    if ended is None or total_s <= 0 or moment.record["type"] not in {"call", "http"}:
        return Text()
    first = min(width - 1, max(0, int(moment.at_s / total_s * width)))
    last = min(width, max(first + 1, round(ended / total_s * width)))
    outcome = moment.outcome or {}
    style = "red" if outcome.get("error") else _STYLES.get(str(moment.record.get("kind")), "")
    return Text.assemble(" " * first, (symbol(on, "━") * (last - first), style))
