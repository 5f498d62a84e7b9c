"""Calls as bars on a scale of time: which ran side by side, and where the run waited. Numbers only, no markup."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Bar", "Overview", "Scale", "Span", "overview_of", "packed"]

_WIDTH: Final = 1000.0
_MOST_LANES: Final = 14
_NARROWEST: Final = 0.5
"""Percent of the scale that a bar has at least, so that it can be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What a bar stands for."""

    start_s: float
    end_s: float
    look: str
    """`model`, `tool`, `http`, `failed`, `denied`, `replayed` or `open`: a class of the style sheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A stretch of running time as 0 to 100 percent."""

    start_s: float
    end_s: float

    def percent(self, at_s: float) -> float:
        """Return where a moment is, 0 to 100."""
        whole = self.end_s - self.start_s
        return min(100.0, max(0.0, 100.0 * (at_s - self.start_s) / whole)) if whole > 0 else 0.0

    def bar(self, span: Span) -> Bar:
        """Return the bar of a span; one of no length is still seen."""
        first, last = self.percent(span.start_s), self.percent(span.end_s)
        width = max(_NARROWEST, last - first)
        return Bar(x=round(min(first, 100.0 - width), 2), width=round(width, 2), look=span.look)

    def marks(self, count: int = 4) -> list[float]:
        """Return moments that divide the scale evenly, its ends among them, in seconds from its start."""
        return [(self.end_s - self.start_s) * part / count for part in range(count + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar in percent of its scale."""

    x: float
    width: float
    look: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A whole run in a few lanes: as many as calls ran side by side."""

    lanes: Sequence[Sequence[Bar]]
    left_out: int
    """Calls that ran beside so many others that there is no lane for them."""
    gaps: Sequence[float]
    """Where nobody was at work, in percent."""
    most_at_once: int


def packed(spans: Iterable[Span]) -> list[list[Span]]:
    """Return spans in lanes: none overlaps another one in its lane, and there are as few lanes as can be."""
    lanes: list[list[Span]] = []
    free: list[tuple[float, int]] = []
    unused: list[int] = []
    for span in sorted(spans, key=lambda one: (one.start_s, -one.end_s)):
        while free and free[0][0] <= span.start_s:
            heapq.heappush(unused, heapq.heappop(free)[1])
        lane = heapq.heappop(unused) if unused else len(lanes)
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append(span)
        heapq.heappush(free, (span.end_s, lane))
    return lanes


def overview_of(spans: Sequence[Span], gaps_s: Iterable[float], total_s: float) -> Overview:
    """Return a run at one glance, in as many bars as can be told apart, however many calls it made.

    Args:
        spans: Its calls.
        gaps_s: Moments at which nobody was at work for a while.
        total_s: Running time that the scale stands for.
    """
    lanes, scale = packed(spans), Scale(start_s=0.0, end_s=total_s)
    shown = lanes[:_MOST_LANES]
    return Overview(
        lanes=[_merged(lane, scale) for lane in shown],
        left_out=sum(len(lane) for lane in lanes[_MOST_LANES:]),
        gaps=sorted({round(scale.percent(at_s), 1) for at_s in gaps_s}),
        most_at_once=len(lanes),
    )


def _merged(lane: Sequence[Span], scale: Scale) -> list[Bar]:
    """Return the bars of a lane; those that look alike and that no eye could tell apart are one."""
    found: list[Bar] = []
    for span in lane:
        bar = scale.bar(span)
        last = found[-1] if found else None
        if last is not None and last.look == bar.look and bar.x - (last.x + last.width) < 100.0 / _WIDTH:
            end = max(last.x + last.width, bar.x + bar.width)
            found[-1] = Bar(x=last.x, width=round(end - last.x, 2), look=last.look)
        else:
            found.append(bar)
    return found
