"""The lines of a run's timeline: calls with their bars, and what happened between them. Values for templates."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from oao_harness.journal.timeline import Moment, Timeline, mapping, number, text
from oao_harness.server.dashboard.bars import Bar, Overview, Scale, Span, overview_of
from oao_harness.server.dashboard.landmarks import Landmark, landmark_of
from oao_harness.wording import preview
from oao_harness.wording.numbers import duration
from oao_harness.wording.texts import one_line
from oao_hookspecs import Record

__all__ = ["PAGE", "Row", "Window", "overview", "state_of", "window_of"]

PAGE: Final = 200
"""Lines that are shown at once; a browser draws ten thousand, and then nobody can use them."""
_CALLS: Final = frozenset({"call", "http"})
_LONGEST: Final = 160
_DEEPEST: Final = 6
_GAPS: Final = frozenset({"run.resumed", "approval.answered", "plan", "resolved"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line."""

    key: str
    """Names it in the page, and stays the same while the run goes on."""
    landmark: Landmark | None = None
    """Set for a line that is no call; then all else is empty."""
    n: str = ""
    run: str = ""
    kind: str = ""
    """`model`, `tool` or `http`."""
    name: str = ""
    asked: str = ""
    """What it asks for, one line."""
    depth: int = 0
    is_nested: bool = False
    state: str = ""
    """`done`, `failed`, `denied`, `held`, `open`, `doubt`, `replayed`, `edited` or `skipped`."""
    verdict: str = ""
    """What is told of the decision; empty where the call was simply allowed."""
    rule: str = ""
    retries: int = 0
    took: str = ""
    bar: Bar | None = None
    ticks: Sequence[float] = ()
    """Where tries of it failed, in percent of the scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A part of the timeline."""

    rows: Sequence[Row]
    first: int
    """Number of its first line, from 0."""
    total: int
    """Lines of the whole timeline."""
    calls: int
    """Calls of the whole timeline."""
    marks: Sequence[str]
    """Moments under the scale, from its start to its end."""
    at: str
    """Where the scale begins."""
    part: Bar | None
    """Where it is in the whole run; None where it is the whole run."""

    @property
    def is_quiet(self) -> bool:
        """True where nothing is told of any decision: all calls were simply allowed."""
        return not any(row.verdict or row.retries for row in self.rows)

    @property
    def last(self) -> int:
        """Number of the line after its last one."""
        return self.first + len(self.rows)


def _shown(timeline: Timeline) -> list[tuple[Moment, Landmark | None]]:
    found: list[tuple[Moment, Landmark | None]] = []
    for moment in timeline.moments:
        if moment.record["type"] in _CALLS:
            found.append((moment, None))
        elif (landmark := landmark_of(moment, timeline)) is not None:
            found.append((moment, landmark))
    return found


def window_of(timeline: Timeline, first: int | None, now_s: float, size: int = PAGE) -> Window:
    """Return a part of a run's timeline.

    Args:
        timeline: The run.
        first: Number of the first line; None for the start of a run that is over, else the newest.
        now_s: Running time of the run now, where a bar without an end ends.
        size: How many lines at most.
    """
    found = _shown(timeline)
    if first is None:
        first = 0 if timeline.finished is not None else max(0, len(found) - size)
    first = min(max(0, first), max(0, len(found) - 1))
    part = found[first : first + size]
    is_whole = first == 0 and len(part) == len(found)
    ends = [now_s if one.end_s is None else one.end_s for one, landmark in part if landmark is None]
    starts = [one.at_s for one, landmark in part if landmark is None]
    scale = Scale(
        start_s=0.0 if is_whole else min(starts, default=0.0), end_s=now_s if is_whole else max(ends, default=now_s)
    )
    doubts = {(doubt.execution_id, doubt.n) for doubt in timeline.doubts}
    return Window(
        rows=[_row(moment, landmark, scale, now_s, doubts) for moment, landmark in part],
        first=first,
        total=len(found),
        calls=sum(landmark is None for _, landmark in found),
        marks=[duration(at_s) if at_s else "0" for at_s in scale.marks()],
        at=duration(scale.start_s) if scale.start_s else "",
        part=None
        if is_whole
        else Scale(start_s=0.0, end_s=now_s).bar(Span(start_s=scale.start_s, end_s=scale.end_s, look="part")),
    )


def overview(timeline: Timeline, now_s: float) -> Overview:
    """Return the whole run at one glance."""
    spans = [_span(one, now_s, state_of(one, set())) for one in timeline.moments if one.record["type"] in _CALLS]
    gaps = [one.at_s for one in timeline.moments if one.after_s > 0 and one.record["type"] in _GAPS]
    return overview_of(spans, gaps, now_s)


def _span(moment: Moment, now_s: float, state: str) -> Span:
    end_s = max(moment.at_s, now_s if state == "open" else moment.at_s if moment.end_s is None else moment.end_s)
    kind = text(moment.record, "kind") if moment.record["type"] == "call" else "http"
    look = state if state in {"failed", "denied", "open", "replayed", "doubt"} else kind
    return Span(start_s=moment.at_s, end_s=end_s, look=look)


def _row(moment: Moment, landmark: Landmark | None, scale: Scale, now_s: float, doubts: set[tuple[str, int]]) -> Row:
    record = moment.record
    if landmark is not None:
        key = f"m{text(record, 'seq')}-{zlib.crc32(moment.run.encode('utf-8', 'backslashreplace')):08x}"
        return Row(key=key, landmark=landmark, depth=min(moment.depth, _DEEPEST))
    n, state = text(record, "n"), state_of(moment, doubts)
    mark = n or f"h{text(record, 'h')}"
    verdict, rule = _verdict(record)
    asked = preview.request(record)
    if record.get("kind") != "model":
        asked = asked.removeprefix(text(record, "name"))
    return Row(
        key=f"c{zlib.crc32(moment.run.encode('utf-8', 'backslashreplace')):08x}-{mark}",
        n=n,
        run=moment.run,
        kind=text(record, "kind"),
        name=one_line(text(record, "name")),
        asked=asked if len(asked) <= _LONGEST else f"{asked[: _LONGEST - 1]}…",
        depth=min(moment.depth, _DEEPEST),
        is_nested=moment.is_nested,
        state=state,
        verdict=verdict,
        rule=one_line(rule),
        retries=len(moment.retries),
        took=_took(moment, state),
        bar=None if state == "skipped" else scale.bar(_span(moment, now_s, state)),
        ticks=[round(scale.percent(_try_s(moment, one)), 2) for one in moment.retries],
    )


def _try_s(moment: Moment, retry: Record) -> float:
    """Return the running time at which a try failed; nothing waits inside of a call."""
    return moment.at_s + max(0.0, number(retry, "at") - number(moment.record, "at"))


def state_of(moment: Moment, doubts: set[tuple[str, int]]) -> str:
    """Return what became of a call; see `Row.state`.

    Args:
        moment: The call.
        doubts: Run and number of the calls of which nobody knows.
    """
    record, outcome = moment.record, moment.outcome
    if outcome is None:
        if text(mapping(record, "decision"), "verdict") == "deny":
            return "denied"
        if moment.resolved is not None and moment.resolved.get("landed"):
            return "done"
        return "doubt" if (moment.run, int(number(record, "n"))) in doubts else "open"
    if outcome.get("abandoned"):
        return "skipped"
    if mapping(outcome, "error"):
        return "failed"
    return "edited" if outcome.get("edited") else "replayed" if outcome.get("replayed") else "done"


def _verdict(record: Record) -> tuple[str, str]:
    decision = mapping(record, "decision")
    verdict, would = text(decision, "verdict"), text(decision, "would")
    if would:
        return f"would {would}", text(decision, "rule")
    if verdict == "deny":
        return "denied", text(decision, "rule")
    if verdict == "ask":
        return "approved" if record.get("approvals") else "asked", text(decision, "rule")
    if verdict == "modify" or mapping(record, "given"):
        return "modified", text(decision, "rule")
    return "", ""


def _took(moment: Moment, state: str) -> str:
    if moment.outcome is None or state == "skipped":
        return {"denied": "—", "doubt": "in doubt", "open": "running", "skipped": "never made"}.get(state, "")
    return duration(number(moment.outcome, "duration_s"))
