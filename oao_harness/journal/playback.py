"""The recorded order of one replay: numbers, moments, and what stands before what in the journals.

Calls that overlap reach the gate in an order that is chance. What a replay writes must not be: a served call's
records wait here until what was recorded before them has come. Nothing waits for them but other records.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, cast

from oao_harness.journal.events import HTTP
from oao_harness.journal.exchanges import Exchanges
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_hookspecs import Json

if TYPE_CHECKING:
    from oao_harness.journal.writer import Writer

__all__ = ["Playback", "replay_id"]

# They say how far a run is. They stand behind the run's own calls that came before them, wherever those have to wait.
_IN_PASSING: Final = frozenset({"run.started", "run.finished", "plan", "state", "step", "child", "ungoverned"})
_NAMESPACE: Final = uuid.UUID("6f1d1c1e-0a5b-5d0e-9a52-6f616f000001")


def replay_id(recording: Recording, run_name: str) -> str:
    """Return the id of a run that plays a recording: the same for the same recorded calls and name, on any machine.

    Args:
        recording: What it plays.
        run_name: Its name in the test, for example `main`.
    """
    keys = " ".join(f"{event.run}:{event.start}:{event.end}:{event.key}" for event in recording.events)
    return str(uuid.uuid5(_NAMESPACE, f"{recording.test}\n{keys}\n{run_name}"))


@dataclass(slots=True)
class _Beat:
    """One record of a recorded call: where it stood, and when."""

    event: int
    type: str
    at: float | None = None
    passed: bool = False
    """True where it is written, or never will be: its call was inside of one that is served whole."""


@dataclass(slots=True, eq=False)
class _Part:
    """One run's journal."""

    writer: Writer
    base: float | None
    """When the journal begins; None where its first served call says so."""
    last: float | None = None
    """When its last record was written."""
    top: int = -1
    """Position of the latest served record that came, written or not."""
    opening: list[tuple[str, dict[str, Json]]] = field(default_factory=list[tuple[str, dict[str, Json]]])
    """What came before any served record."""
    after: dict[int, list[tuple[str, dict[str, Json]]]] = field(
        default_factory=lambda: defaultdict[int, list[tuple[str, dict[str, Json]]]](list)
    )
    """What came after a served record that waits, by the position of that one."""
    numbers: dict[int, int] = field(default_factory=dict[int, int])
    """Events by the numbers that their calls have in this journal."""
    open: bool = False
    """True where its first record is written."""
    nested: bool = False
    live: bool = False
    """True where a call was made that is not recorded: from then on the machine's clock tells the time."""
    broken: Exception | None = None
    """Why a record that waited could not be kept; told by the next one."""


class Playback:
    """What the runs that play one recording share. Safe to use from many threads.

    Args:
        recording: What is played.
    """

    def __init__(self, recording: Recording) -> None:
        self.changed = threading.Condition(threading.RLock())
        """Notified when a record of a served call has come."""
        self.version = 0
        """How many have."""
        # What a replay serves of HTTP is written nowhere.
        events = tuple(event for event in recording.events if event.kind != HTTP)
        self.exchanges = Exchanges(recording.events)
        """What was said over protocols beside the calls."""
        self._clock = _clock_of(recording)
        self._numbers = _numbers(events)
        self.last_number = max(self._numbers.values(), default=0)
        """The greatest number that a recorded call has in its run; new calls are numbered after it."""
        self._inside: dict[int, list[int]] = defaultdict(list)
        for event in events:
            if event.parent is not None:
                self._inside[event.parent].append(event.n)
        self._beats = _beats(events, self._clock)
        self._position = {(beat.event, beat.type): position for position, beat in enumerate(self._beats)}
        self._nested: dict[tuple[str, str], int] = defaultdict(int)
        self._next = 0
        self._held: dict[int, tuple[_Part, str, dict[str, Json]]] = {}
        self._parts: dict[str, _Part] = {}
        self._links: dict[str, tuple[_Part, dict[str, Json]]] = {}
        self._ends = {event.n: (event.end, event.n) for event in events}
        self._by_end = sorted(self._ends, key=self._ends.__getitem__)
        self._ended: set[int] = {event.n for event in events if not event.finished}
        self._first_end = 0
        self._queueing: set[int] = set()

    # Ids and numbers

    def nested_id(self, outer: str, what: Json) -> str:
        """Return the id of a run that is started inside of another one: the same in every replay.

        Args:
            outer: Id of the run that it is nested in.
            what: Who is asked what, where. The same again is another run.
        """
        text = json.dumps(what, sort_keys=True)
        with self.changed:
            self._nested[outer, text] += 1
            return str(uuid.uuid5(_NAMESPACE, f"{outer}\n{text}\n{self._nested[outer, text]}"))

    def number(self, execution_id: str, event: int) -> int | None:
        """Return the number that the call had in its recorded run; None where this run has another call of it."""
        number = self._numbers.get(event)
        with self.changed:
            part = self._parts.get(execution_id)
            if part is None or number is None or part.numbers.setdefault(number, event) != event:
                return None
            return number

    # The journals

    def join(self, writer: Writer, execution_id: str, *, nested: bool) -> None:
        """Let a run's journal be written in the recorded order.

        Args:
            writer: The run's pen.
            execution_id: The run.
            nested: True where it is nested in another run that plays the same recording.
        """
        with self.changed:
            self._parts[execution_id] = _Part(writer, None if self._parts else self._clock, nested=nested)

    def append(self, execution_id: str, type: str, fields: dict[str, Json], event: int | None) -> None:
        """Write a record, or keep it until what was recorded before it has come.

        Args:
            execution_id: The run.
            type: Record type.
            fields: The record's own fields.
            event: Number of the recorded event, for the records of a served call.

        Raises:
            StoreError: This run's store did not keep a record.
        """
        with self.changed:
            part = self._parts[execution_id]
            position = self._position.get((event, type)) if event is not None else None
            if position is not None and not self._beats[position].passed and position not in self._held:
                self._held[position] = (part, type, fields)
                part.top = max(part.top, position)
                self._came(cast("int", event), type)
                self._advance()
            elif type in _IN_PASSING:
                self._pass(part, type, fields)
            else:
                if type != "outcome":
                    self._write_all()
                part.live = part.live or type in {"call", "again", HTTP}
                self._write(part, type, fields, None)
            broken, part.broken = part.broken, None
        if broken is not None:
            raise broken

    def _came(self, event: int, type: str) -> None:
        inside = [*self._inside.get(event, ())] if type == "call" else []
        while inside:
            child = inside.pop()
            inside += self._inside.get(child, ())
            self._ended.add(child)
            for one in ("call", "outcome"):
                position = self._position.get((child, one))
                if position is not None:
                    self._beats[position].passed = True
        if type == "outcome" or (event, "outcome") not in self._position:
            self._ended.add(event)
            self._queueing.discard(event)
        self.version += 1
        self.changed.notify_all()

    def _advance(self) -> None:
        while self._next < len(self._beats):
            if self._next in self._held:
                self._release(self._next)
            elif not self._beats[self._next].passed:
                return
            self._next += 1

    def _release(self, position: int) -> None:
        part, kept, fields = self._held.pop(position)
        beat = self._beats[position]
        beat.passed = True
        self._write(part, kept, fields, beat.at)
        for waiting in part.after.pop(position, ()):
            self._write(part, *waiting, None)

    def _pass(self, part: _Part, type: str, fields: dict[str, Json]) -> None:
        if type == "child":
            self._links[str(fields["execution_id"])] = (part, fields)
        elif part.top >= 0 and part.top in self._held:
            part.after[part.top].append((type, fields))
        elif part.open or part.base is not None:
            self._write(part, type, fields, None)
        else:
            part.opening.append((type, fields))
        if type == "run.finished" and not part.nested:
            self._write_all()

    def _write_all(self) -> None:
        """Write whatever waits, in the recorded order: something is about to happen, or nothing more will."""
        for position in sorted(self._held):
            self._release(position)
        for execution_id in sorted(self._parts):
            part = self._parts[execution_id]
            if part.opening:
                self._write(part, None, {}, None)
        for execution_id in sorted(self._links):
            outer, fields = self._links.pop(execution_id)
            self._write(outer, "child", fields, None)

    def _write(self, part: _Part, type: str | None, fields: dict[str, Json], at: float | None) -> None:
        link = None if part.open else self._links.pop(part.writer.execution_id, None)
        part.open = True
        if link is not None:
            self._write(link[0], "child", link[1], at)
        opening, part.opening = part.opening, []
        for one in opening:
            self._keep(part, *one, at)
        if type is not None:
            self._keep(part, type, fields, at)

    def _keep(self, part: _Part, type: str, fields: dict[str, Json], at: float | None) -> None:
        if part.live and at is None:
            at = part.writer.now()
        known = [one for one in (part.last if part.last is not None else part.base, at) if one is not None]
        part.last = max(known) if known else self._clock if self._clock is not None else part.writer.now()
        if part.broken is not None:
            return
        try:
            part.writer.keep(type, fields, part.last)
        except Exception as error:  # noqa: BLE001 - told to the run whose journal it is, not to the one that released it
            part.broken = error

    # Turns

    def ahead_of(self, event: int) -> int | None:
        """Return the recorded event that should end next, where that is before this one; else None."""
        with self.changed:
            while self._first_end < len(self._by_end) and self._by_end[self._first_end] in self._ended:
                self._first_end += 1
            if self._first_end == len(self._by_end):
                return None
            first = self._by_end[self._first_end]
            return first if event in self._ends and self._ends[first] < self._ends[event] else None

    def queue(self, event: int) -> None:
        """Say that a call is served, and waits for its turn to end."""
        with self.changed:
            self._queueing.add(event)

    def is_queueing(self, event: int) -> bool:
        """Return True where a call waits for its turn, and so will end without help."""
        return event in self._queueing

    def give_up(self, event: int) -> None:
        """Wait no longer for the calls that should end before this one, and have not come."""
        with self.changed:
            for other in self._by_end[self._first_end :]:
                if self._ends[other] >= self._ends[event]:
                    break
                if other not in self._queueing:
                    self._ended.add(other)
            self.changed.notify_all()


def _clock_of(recording: Recording) -> float | None:
    clock, at = recording.header.get("clock"), recording.header.get("at")
    if isinstance(clock, int | float):
        return float(clock)
    try:
        return datetime.fromisoformat(at).timestamp() if isinstance(at, str) else None
    except ValueError:
        return None


def _numbers(events: tuple[RecordedEvent, ...]) -> dict[int, int]:
    """Return the number of each event in its run: its place among the calls of that run."""
    counts: dict[str, int] = defaultdict(int)
    numbers: dict[int, int] = {}
    for event in events:
        counts[event.run] += 1
        numbers[event.n] = counts[event.run]
    return numbers


def _beats(events: tuple[RecordedEvent, ...], clock: float | None) -> list[_Beat]:
    """Return the records of all recorded calls in the order they were written."""
    ticks: list[tuple[int, int, int, _Beat]] = []
    for event in events:
        ended = None if clock is None or event.at is None else clock + event.at
        began = None if ended is None else ended - (event.took_s or 0.0)
        ticks.append((event.start, 0, event.n, _Beat(event.n, "call", began)))
        if event.finished and not event.denied:
            ticks.append((event.end, 1, event.n, _Beat(event.n, "outcome", ended)))
    beats = [beat for *_, beat in sorted(ticks, key=lambda tick: tick[:3])]
    # How long a call took is rounded: it never began after what was written next.
    latest: float | None = None
    for beat in reversed(beats):
        if beat.at is not None:
            latest = beat.at if latest is None else min(beat.at, latest)
            beat.at = latest if beat.type == "call" else beat.at
    return beats
