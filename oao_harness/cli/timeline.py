"""A run's records as the moments that a person is shown. Values only: how they look is `render`'s business."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from oao_hookspecs import Json, Record

__all__ = ["Moment", "Timeline", "mapping", "number", "short_id", "text", "tokens_of"]


@dataclass(slots=True, kw_only=True)
class Moment:
    """A record, and what later records said about it."""

    record: Record
    depth: int = 0
    """How many calls this one happened inside of."""
    outcome: Record | None = None
    retries: list[Record] = field(default_factory=list[Record])


@dataclass(slots=True, kw_only=True)
class Timeline:
    """One run, in the order of its journal."""

    started: Record
    plan: Record = field(default_factory=dict[str, Json])
    moments: list[Moment] = field(default_factory=list[Moment])
    """States, framework steps and calls."""
    violation: Record | None = None
    ungoverned: list[str] = field(default_factory=list[str])
    observed: list[Record] = field(default_factory=list[Record])
    """Calls that a policy would have stopped if it did not only observe."""
    suspended: Record | None = None
    """Set while the run waits for a person."""
    questions: dict[str, Record] = field(default_factory=dict[str, Record])
    """What a person was asked, by id."""
    finished: Record | None = None
    """None while the run is open, or for ever where its process died."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> Timeline:
        """Read the records of one run; types that a newer oao may have added are passed over."""
        timeline = cls(started={})
        calls: dict[int, Moment] = {}
        for record in records:
            add = timeline._add_http if text(record, "type").startswith("http") else timeline._add
            add(record, calls)
        return timeline

    def _add(self, record: Record, calls: dict[int, Moment]) -> None:
        kind, called = text(record, "type"), calls.get(int(number(record, "n")))
        if kind == "call":
            outer = calls.get(int(number(record, "parent")))
            moment = Moment(record=record, depth=0 if outer is None else outer.depth + 1)
            calls[int(number(record, "n"))] = moment
            self.moments.append(moment)
            if text(mapping(record, "decision"), "would"):
                self.observed.append(record)
        elif kind in {"run.suspended", "run.resumed"}:
            self.suspended = record if kind == "run.suspended" else None
        elif kind == "approval.requested":
            self.questions[text(record, "id")] = record
        elif kind in {"run.started", "state", "step"}:
            self.started = record if kind == "run.started" else self.started
            self.moments.append(Moment(record=record))
        elif kind == "plan":
            self.plan = record
        elif kind == "outcome" and called is not None:
            called.outcome = record
        elif kind == "retry" and called is not None:
            called.retries.append(record)
        elif kind == "violation":
            self.violation = self.violation or record
        elif kind == "ungoverned":
            self.ungoverned.append(text(record, "what"))
        elif kind == "run.finished":
            self.finished = record

    def _add_http(self, record: Record, calls: dict[int, Moment]) -> None:
        # Numbered apart from the calls.
        number_ = -int(number(record, "h"))
        if text(record, "type") == "http":
            outer = calls.get(int(number(record, "parent")))
            shown: Record = {**record, "kind": "http", "n": "", "decision": {}}
            calls[number_] = Moment(record=shown, depth=0 if outer is None else outer.depth + 1)
            self.moments.append(calls[number_])
        elif number_ in calls:
            calls[number_].outcome = record

    @property
    def calls(self) -> list[Moment]:
        """The calls alone, without the requests that were sent in them."""
        return [moment for moment in self.moments if moment.record["type"] == "call"]

    @property
    def status(self) -> str:
        """RUNNING, SUSPENDED, SUCCESS or FAILED."""
        if self.finished is not None:
            return text(self.finished, "status")
        return "RUNNING" if self.suspended is None else "SUSPENDED"

    @property
    def duration_s(self) -> float | None:
        """Seconds from the first to the last record; None while the run is open."""
        return None if self.finished is None else max(0.0, number(self.finished, "at") - number(self.started, "at"))

    @property
    def totals(self) -> Mapping[str, int]:
        """`steps`, `model_calls`, `tool_calls`, `tokens`: as journaled, or counted so far."""
        if self.finished is not None:
            return cast("Mapping[str, int]", mapping(self.finished, "totals"))
        happened = [moment for moment in self.calls if moment.outcome is not None]
        models = sum(moment.record["kind"] == "model" for moment in happened)
        tokens = sum(sum(tokens_of(moment)) for moment in happened)
        return {"steps": len(happened), "model_calls": models, "tool_calls": len(happened) - models, "tokens": tokens}


def tokens_of(moment: Moment) -> tuple[int, int]:
    """Return the input and output tokens of a call."""
    usage = mapping(moment.outcome or {}, "usage")
    return int(number(usage, "in")), int(number(usage, "out"))


def short_id(question: str) -> str:
    """Return the id of a question as it is shown and may be typed: the start of its run's id and its number."""
    run, _, number = question.rpartition("-")
    return f"{run[:8].rstrip('-')}-{number}"


def text(record: Mapping[str, Json], key: str) -> str:
    """Return a field as text; empty where it is missing."""
    value = record.get(key)
    return "" if value is None else str(value)


def number(record: Mapping[str, Json], key: str) -> float:
    """Return a field as a number; 0 where it is missing."""
    value = record.get(key)
    return value if isinstance(value, int | float) else 0


def mapping(record: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    """Return a field as a mapping; empty where it is missing."""
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}
