"""A run's records as the moments that a person is shown. Values only: how they look is the business of each face."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from oao_harness.journal.doubts import Doubt, doubts_of
from oao_hookspecs import Json, Record

__all__ = ["Kin", "Moment", "Timeline", "mapping", "number", "short_id", "text", "tokens_of"]

Read = Callable[[str], Sequence[Record]]
"""Returns the journal of a nested run; nothing where it is not known."""

# What happens while nobody is at work on the run: the time until then was waiting.
_WHILE_IT_WAITS: Final = frozenset({"approval.answered", "resolved", "redaction"})
_LANDMARKS: Final = frozenset(
    {"run.started", "run.suspended", "run.resumed", "state", "step", "approval.answered", "resolved", "child"}
    | {"redaction", "run.queued", "node"}
)


@dataclass(slots=True, kw_only=True)
class Moment:
    """A record, and what later records said about it."""

    record: Record
    run: str = ""
    """Id of the run that it happened in."""
    depth: int = 0
    """How many calls this one happened inside of."""
    at_s: float = 0.0
    """Running time of the outermost run until then, in seconds; what it waited is no running time."""
    end_s: float | None = None
    """The same at its outcome; None where it has none."""
    after_s: float = 0.0
    """Seconds without anybody at work before it: what a resumed run waited, what a person took to answer."""
    outcome: Record | None = None
    resolved: Record | None = None
    """What a person said of it, where it was in doubt."""
    retries: list[Record] = field(default_factory=list[Record])
    again: int = 0
    """How often it was made once more after an interruption."""
    failed: Record | None = None
    """The outcome that did not count, where the run was tried again."""
    is_nested: bool = False
    """True for what happened in a run inside of the one that is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kin:
    """Where a run comes from, and what came of it, as far as its store knows."""

    forks: Sequence[tuple[str, str]] = ()
    """Id and status of the runs that were forked from it."""
    is_source_gone: bool = False
    """True where the run that it was forked from is not in the store any more."""


@dataclass(slots=True, kw_only=True)
class Timeline:
    """One run, in the order of its journal."""

    started: Record
    plan: Record = field(default_factory=dict[str, Json])
    moments: list[Moment] = field(default_factory=list[Moment])
    """States, framework steps and calls, those of nested runs after the record that names these."""
    violation: Record | None = None
    ungoverned: list[str] = field(default_factory=list[str])
    observed: list[Record] = field(default_factory=list[Record])
    """Calls that a policy would have stopped if it did not only observe."""
    suspended: Record | None = None
    """Set while the run waits for a person."""
    queued: Record | None = None
    """Set while the run waits for a worker: what says so."""
    questions: dict[str, Record] = field(default_factory=dict[str, Record])
    """What a person was asked, by id."""
    answers: dict[str, list[Moment]] = field(default_factory=dict[str, list[Moment]])
    """What they said, by id of the question."""
    redactions: list[Record] = field(default_factory=list[Record])
    doubts: list[Doubt] = field(default_factory=list[Doubt])
    """Calls of which a person must say what became of them, of nested runs too."""
    finished: Record | None = None
    """None while the run is open, or for ever where its process died."""
    running_s: float = 0.0
    """Seconds in which it was at work."""
    waited_s: float = 0.0
    """Seconds in which it waited for a person, over intervals that are over."""
    queued_s: float = 0.0
    """Seconds in which it waited for a worker, over intervals that are over."""
    down_s: float = 0.0
    """Seconds from where it was interrupted to where it went on."""
    kin: Kin = field(default_factory=Kin)
    _last_at: float | None = None
    _resumed: bool = False

    @classmethod
    def of(cls, records: Iterable[Record], read: Read | None = None) -> Timeline:
        """Read the records of one run; types that a newer oao may have added are passed over.

        Args:
            records: Its journal.
            read: Finds the runs nested in it; None leaves them out.
        """
        timeline = cls(started={})
        timeline._read(list(records), read, {})
        return timeline

    def _read(self, records: Sequence[Record], read: Read | None, seen: dict[str, None]) -> None:
        calls: dict[int, Moment] = {}
        seen[text(records[0] if records else {}, "execution_id")] = None
        for record in records:
            idle_s = self._pass_time(record)
            add = self._add_http if text(record, "type").startswith("http") else self._add
            add(record, calls, idle_s)
            nested = text(record, "execution_id")
            if record.get("type") == "child" and read is not None and nested not in seen:
                self._add_nested(read(nested), read, seen, calls.get(int(number(record, "n"))))
        self.doubts += doubts_of(records)

    def _pass_time(self, record: Record) -> float:
        """Count the time until a record; return how much of it nobody was at work."""
        at, kind = number(record, "at"), text(record, "type")
        # A clock may go back, and a fork begins before what it has from its source.
        passed = 0.0 if self._last_at is None else max(0.0, at - self._last_at)
        self._last_at = at
        if self.suspended is not None and kind in {"run.resumed", "run.queued", *_WHILE_IT_WAITS}:
            self.waited_s += passed
        elif self.queued is not None:
            self.queued_s += passed
        elif kind in {"run.resumed", *_WHILE_IT_WAITS} and self.finished is None:
            # What lies between a run and its fork is nobody's.
            self.down_s += 0.0 if self._begins_own_part else passed
        elif self.finished is None:
            self.running_s += passed
            return 0.0
        return passed

    def _add(self, record: Record, calls: dict[int, Moment], idle_s: float) -> None:
        kind, called = text(record, "type"), calls.get(int(number(record, "n")))
        if kind in _LANDMARKS:
            self.moments.append(Moment(record=record, at_s=self.running_s, after_s=idle_s))
        if kind == "call":
            outer = calls.get(int(number(record, "parent")))
            moment = self._moment(record, outer)
            calls[int(number(record, "n"))] = moment
            self.moments.append(moment)
            if text(mapping(record, "decision"), "would"):
                self.observed.append(record)
        elif kind in {"outcome", "retry", "again", "resolved"} and called is not None:
            self._add_to(called, record)
        elif kind in {"run.suspended", "run.resumed"}:
            self._add_pause(record)
        elif kind == "approval.requested":
            self.questions[text(record, "id")] = record
        elif kind == "approval.answered":
            asked = number(self.questions.get(text(record, "id"), record), "at")
            self.moments[-1].after_s = max(0.0, number(record, "at") - asked)
            self.answers.setdefault(text(record, "id"), []).append(self.moments[-1])
        elif kind in {"run.started", "run.queued", "plan"}:
            self._add_beginning(record)
        elif kind == "violation":
            self.violation = self.violation or record
        elif kind == "ungoverned":
            self.ungoverned.append(text(record, "what"))
        elif kind == "redaction":
            self.redactions.append(record)
        elif kind == "run.finished":
            self.finished = record

    def _moment(self, record: Record, outer: Moment | None) -> Moment:
        depth = 0 if outer is None else outer.depth + 1
        return Moment(record=record, run=text(self.started, "execution_id"), depth=depth, at_s=self.running_s)

    def _add_beginning(self, record: Record) -> None:
        """Add what a run that waits for a worker begins with; one that does not has `run.started` and `plan` too."""
        if record["type"] == "plan":
            self.plan, self.queued = record, None
            if "waited_s" in record:
                self.moments.append(Moment(record=record, at_s=self.running_s, after_s=number(record, "waited_s")))
            return
        if record["type"] == "run.started":
            self.started = record
        if record["type"] == "run.queued" or record.get("job") is not None:
            self.queued, self.suspended = record, None

    def _add_pause(self, record: Record) -> None:
        if record["type"] == "run.suspended":
            self.suspended, self.queued = record, None
            return
        is_fork = self._begins_own_part
        self.moments[-1].record = {
            **record,
            "waited": self.suspended is not None,
            "was_queued": self.queued is not None,
            "is_fork": is_fork,
            "policy_changed": self.plan.get("policy") != record.get("policy") and not is_fork,
        }
        if self.suspended is not None:
            self.moments[-1].after_s = max(0.0, number(record, "at") - number(self.suspended, "at"))
        if self.queued is not None:
            self.moments[-1].after_s = max(0.0, number(record, "at") - number(self.queued, "at"))
        self.suspended, self.queued, self._resumed = None, None, True
        self.plan = record

    def _add_to(self, called: Moment, record: Record) -> None:
        if record["type"] == "outcome":
            called.outcome, called.end_s = record, self.running_s
        elif record["type"] == "resolved":
            called.resolved = record
        elif record["type"] == "retry":
            called.retries.append(record)
        else:
            called.again += 1
            called.failed, called.outcome = called.outcome, None

    def _add_http(self, record: Record, calls: dict[int, Moment], _idle_s: float) -> None:
        # Numbered apart from the calls.
        number_ = -int(number(record, "h"))
        if text(record, "type") == "http":
            outer = calls.get(int(number(record, "parent")))
            shown: Record = {**record, "kind": "http", "n": "", "decision": {}}
            calls[number_] = self._moment(shown, outer)
            self.moments.append(calls[number_])
        elif number_ in calls:
            calls[number_].outcome, calls[number_].end_s = record, self.running_s

    def _add_nested(self, records: Sequence[Record], read: Read, seen: dict[str, None], caller: Moment | None) -> None:
        """Put what a nested run did after the record that names it."""
        depth = 0 if caller is None else caller.depth + 1
        child = self.moments[-1]
        child.depth = depth
        if not records:
            child.record = {**child.record, "gone": True}
            return
        nested = Timeline(started={})
        nested._read(records, read, seen)
        child.record = {**child.record, "agent": nested.started.get("agent"), "status": nested.status}
        for moment in nested.moments:
            if moment.record["type"] in {"run.started", "state", "step", "plan"}:
                continue
            moment.depth += depth + 1
            moment.at_s += self.running_s
            moment.end_s = None if moment.end_s is None else moment.end_s + self.running_s
            moment.is_nested = True
            self.moments.append(moment)
        self.questions = {**nested.questions, **self.questions}
        self.answers = {**nested.answers, **self.answers}
        self.doubts += nested.doubts

    @property
    def _begins_own_part(self) -> bool:
        """True for a fork that has not gone on yet from where it parts with its source."""
        return not self._resumed and bool(self.started.get("forked"))

    @property
    def calls(self) -> list[Moment]:
        """The run's own calls alone, without the requests that were sent in them."""
        return [moment for moment in self.moments if moment.record["type"] == "call" and not moment.is_nested]

    @property
    def status(self) -> str:
        """QUEUED, RUNNING, SUSPENDED, DEAD, SUCCESS or FAILED."""
        if self.finished is not None:
            return text(self.finished, "status")
        if self.suspended is not None:
            return "DEAD" if self.suspended.get("dead") else "SUSPENDED"
        return "RUNNING" if self.queued is None else "QUEUED"

    @property
    def last_at(self) -> float:
        """When its last record was written, in Unix seconds; 0 without one."""
        return self._last_at or 0.0

    @property
    def duration_s(self) -> float | None:
        """Seconds in which the run was at work; None while it is open."""
        return None if self.finished is None else self.running_s

    @property
    def totals(self) -> Mapping[str, int]:
        """`steps`, `model_calls`, `tool_calls`, `tokens`: as journaled, or counted so far."""
        if self.finished is not None:
            return cast("Mapping[str, int]", mapping(self.finished, "totals"))
        happened = [moment for moment in self.calls if moment.outcome is not None]
        models = sum(moment.record["kind"] == "model" for moment in happened)
        tokens = sum(sum(tokens_of(moment)) for moment in happened)
        return {"steps": len(happened), "model_calls": models, "tool_calls": len(happened) - models, "tokens": tokens}

    @property
    def cost_usd(self) -> float | None:
        """US dollars, as far as a policy asked for prices; None where none did."""
        for record in (self.finished, self.suspended):
            if record is not None and "cost_usd" in mapping(record, "totals"):
                return number(mapping(record, "totals"), "cost_usd")
        return None


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
