"""Answers the calls of a replayed run from a recording: the whole request must be equal, in the recorded order.

Calls that overlapped when they were recorded may come in any order: a recorded call may be served as soon as every
call that had ended before it started is served. The tool calls that one answer of a model asks for together count as
overlapping, because it is chance which of them a framework starts first. Nothing else may differ, and there is no
nearest match.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from oao_harness.journal.differences import details, headline
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import key_of, request_of
from oao_harness.journal.replay import Served
from oao_hookspecs import Call, Json

__all__ = ["Matcher"]

_SUFFIX = "(replay diverged)"


class Matcher:
    """Serves each recorded call once, from any thread; the cost of a call does not grow with the recording.

    Args:
        recording: What was recorded.
    """

    def __init__(self, recording: Recording) -> None:
        self._events = _with_batches_overlapping(recording.events)
        self._lock = threading.Lock()
        self._served: set[int] = set()
        self._by_key: dict[str, list[RecordedEvent]] = defaultdict(list)
        self._by_end = sorted(self._events, key=lambda event: event.end)
        self._first_end = 0
        self._children: dict[int, list[RecordedEvent]] = defaultdict(list)
        # By end, because among equal requests the one that ended first unlocks most of what follows.
        for event in self._by_end:
            self._by_key[event.key].append(event)
        for event in self._events:
            if event.parent is not None:
                self._children[event.parent].append(event)

    def serve(self, call: Call, run_name: str) -> Served | str | None:
        """Return the recorded outcome, or how the call diverges; see `Replay.serve`."""
        request = request_of(call)
        with self._lock:
            key = key_of(call.kind, call.name, request)
            waiting = self._by_key.get(key, [])
            free = (event for event in waiting if event.n not in self._served and self._is_free(event))
            event = self._choose(free, call.call_id)
            if event is not None:
                waiting.remove(event)
                return self._take(event)
            return None if self._may_be_new(call) else self._explain(call, request, key)

    def holds(self, call: Call) -> bool:
        """Return False: whoever plays another run's recording asks its questions again; see `Replay.holds`."""
        return False

    def _may_be_new(self, call: Call) -> bool:
        """Return True where a call that nobody recorded may be made."""
        return False

    def unplayed(self) -> list[RecordedEvent]:
        """Return the recorded calls that nobody asked for, in recorded order."""
        with self._lock:
            return [event for event in self._events if event.n not in self._served]

    def unplayed_text(self) -> str | None:
        """Return one line that names them, or None; see `Replay.unplayed_text`."""
        left = self.unplayed()
        if not left:
            return None
        names = ", ".join(f"#{event.n} {event.kind} {event.name}" for event in left[:5])
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        return f"{len(left)} recorded {'step' if len(left) == 1 else 'steps'} not replayed: {names}{more}"

    def _is_free(self, event: RecordedEvent) -> bool:
        """Return True where no unserved event had ended before this one started."""
        while self._first_end < len(self._by_end) and self._by_end[self._first_end].n in self._served:
            self._first_end += 1
        return self._first_end == len(self._by_end) or self._by_end[self._first_end].end >= event.start

    def _choose(self, free: Iterator[RecordedEvent], call_id: str | None) -> RecordedEvent | None:
        """Return the event that the model gave the same call id, else the one that ended first."""
        first = next(free, None)
        if first is None or call_id is None or first.call_id == call_id:
            return first
        return next((event for event in free if event.call_id == call_id), first)

    def _take(self, event: RecordedEvent) -> Served | str:
        self._served.add(event.n)
        if event.outcome is None:
            return f"step {event.n} {event.kind} {event.name}: it never ended when it was recorded {_SUFFIX}"
        children = list(self._descendants(event))
        self._served.update(child.n for child in children)
        inside = [(child.call, child.outcome, child.denied) for child in children]
        return Served(outcome=event.outcome, children=inside, decision=event.decision, event=event.n)

    def _descendants(self, event: RecordedEvent) -> Iterator[RecordedEvent]:
        for child in self._children.get(event.n, ()):
            yield child
            yield from self._descendants(child)

    def _explain(self, call: Call, request: dict[str, Json], key: str) -> str:
        """Say what is different, most telling first. Only this message looks for what is near; it is never served."""
        what = f"{call.kind} {call.name}"
        waiting = [event for event in self._events if event.n not in self._served]
        if early := [event for event in waiting if event.key == key]:
            blockers = [event for event in waiting if event.end < early[0].start][:3]
            before = ", ".join(f"{event.kind} {event.name} #{event.n}" for event in blockers)
            return f"step {early[0].n} {what} came before {before} {_SUFFIX}"
        free = [event for event in waiting if self._is_free(event)]
        if alike := [event for event in free if (event.kind, event.name) == (call.kind, call.name)]:
            return self._changed(alike[0], request)
        number = free[0].n if free else len(self._events) + 1
        if times := sum(event.key == key for event in self._events):
            return f"step {number} {what}: identical call number {times + 1}, recorded {times} {_SUFFIX}"
        if not waiting:
            return f"step {number} {what}: the recording ends after {len(self._events)} steps {_SUFFIX}"
        if renamed := [event for event in free if event.kind == call.kind == "model"]:
            return f"step {number} model: {renamed[0].name} -> {call.name} {_SUFFIX}"
        expected = " or ".join(f"{event.kind} {event.name}" for event in free[:3])
        return f"step {number}: {what} instead of {expected} {_SUFFIX}"

    def _changed(self, event: RecordedEvent, request: dict[str, Json]) -> str:
        line = f"step {event.n} {event.kind} {event.name}: {headline(event.kind, event.request, request)} {_SUFFIX}"
        return "\n".join([line, *(f"  {detail}" for detail in details(event.request, request))])


def _with_batches_overlapping(events: tuple[RecordedEvent, ...]) -> tuple[RecordedEvent, ...]:
    """Return the events with the spans of each batch widened to that of the whole batch."""
    batches: dict[tuple[str, int], list[RecordedEvent]] = defaultdict(list)
    for event in events:
        if event.batch is not None:
            batches[event.run, event.batch].append(event)
    spans = {key: (min(one.start for one in batch), max(one.end for one in batch)) for key, batch in batches.items()}
    widened: list[RecordedEvent] = []
    for event in events:
        span = spans.get((event.run, event.batch)) if event.batch is not None else None
        widened.append(event if span is None else replace(event, start=span[0], end=span[1]))
    return tuple(widened)
