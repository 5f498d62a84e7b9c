"""Answers the calls of a replayed run from a recording: the whole request must be equal, in the recorded order.

What may differ, and nothing else: ids that are new in every run (see `tokens`) stand one to one for the recorded ones;
calls that overlapped when they were recorded may come in any order: a recorded call may be served as soon as every
call that had ended before it started is served. The tool calls that one answer of a model asks for together count as
overlapping, because it is chance which of them a framework starts first. There is no nearest match.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

from oao_harness.errors import ConfigError
from oao_harness.journal.diagnosis import Situation, explain
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import request_of
from oao_harness.journal.renaming import Renaming
from oao_harness.journal.replay import Divergence, Served
from oao_harness.journal.shape import Shape, Shaper, default_shaper
from oao_harness.journal.tokens import DEFAULT_KINDS
from oao_harness.journal.waiting import WaitingRun
from oao_hookspecs import Call, Json

__all__ = ["Matcher", "Order", "unplayed_line", "would_match"]

Order: TypeAlias = Literal["causal", "strict", "any"]
"""`causal`: what overlapped may come in any order; `strict`: as recorded, over all runs; `any`: in any order."""


class Matcher:
    """Serves each recorded call once, from any thread; the cost of a call does not grow with the recording.

    Runs are played independently of each other, unless the order is strict. A live run plays the recorded run of its
    name where its first call fits there, else another one of the same agent: two runs of one agent may start in
    another order. Where only one run was recorded, every live run plays it.

    Args:
        recording: What was recorded.
        order: What order the calls must keep.
        ignore: Paths of requests that are not compared; see `paths`.
        volatile: Kinds of tokens that stand for the recorded ones; see `tokens`.

    Raises:
        ConfigError: There is no such order or kind of token, or a path cannot be read.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        order: Order = "causal",
        ignore: Iterable[str] = (),
        volatile: Iterable[str] = DEFAULT_KINDS,
    ) -> None:
        if order not in get_args(Order):
            raise ConfigError(f"{order!r} is no order; there are {', '.join(get_args(Order))}")
        self._shaper = Shaper(ignore, volatile)
        self._order = order
        self._events = _with_batches_overlapping(recording.events)
        self._lock = threading.Lock()
        self._served: set[int] = set()
        self._shapes: dict[int, Shape] = {}
        self._renaming = Renaming()
        self._children: dict[int, list[RecordedEvent]] = defaultdict(list)
        for event in self._events:
            if event.parent is not None:
                self._children[event.parent].append(event)
        of_run: dict[str, list[RecordedEvent]] = defaultdict(list)
        for event in self._events:
            of_run[event.run].append(event)
        self._runs = {
            name: WaitingRun(name, events, self._shape_of, in_any_order=order == "any")
            for name, events in (of_run or {"": []}).items()
        }
        self._live: dict[str, WaitingRun] = {}
        self._in_order = sorted(self._events, key=lambda event: event.start)
        self._next = 0
        if not self._shaper.is_default:
            for run in self._runs.values():
                run.check_keys()

    def serve(self, call: Call, run: str = "") -> Served | Divergence | None:
        """Return the recorded outcome, or how the call diverges; see `Replay.serve`."""
        with self._lock:
            shape = self._shaper.shape(call.kind, call.name, request_of(call), f"live {run}")
            event = self._find(call, shape, run)
            if event is None and self._check_keys():
                event = self._find(call, shape, run)
            if event is None:
                return None if self._may_be_new(call) else self._explain(call, shape, run)
            self._renaming.bind(shape.tokens, self._shape_of(event).tokens, event.n)
            self._renaming.answer(self._answered_tokens(event), event.n)
            return self._take(event)

    @property
    def plays_wire(self) -> bool:
        """Return False: these are the calls themselves; see `Replay.plays_wire`."""
        return False

    def serve_inside(self, call: Call, run: str) -> Served | Divergence | None:
        """Return None: what a live body sends is live too; see `Replay.serve_inside`."""
        return None

    def holds(self, call: Call) -> bool:
        """Return False: whoever plays another run's recording asks its questions again; see `Replay.holds`."""
        return False

    @property
    def looked_at(self) -> int:
        """Candidates looked at so far: what finding the recorded calls costs, as a number of steps."""
        return sum(run.looked_at for run in self._runs.values())

    def unplayed(self) -> list[RecordedEvent]:
        """Return the recorded calls that nobody asked for, in recorded order."""
        with self._lock:
            return [event for event in self._events if event.n not in self._served]

    def unplayed_text(self) -> str | None:
        """Return one line that names them, or None; see `Replay.unplayed_text`."""
        return unplayed_line(self.unplayed())

    def leave_out(self, numbers: Iterable[int]) -> None:
        """Ask for some events no more: another recorded call stands for them."""
        with self._lock:
            for event in self._events if (gone := {*numbers} - self._served) else ():
                if event.n in gone:
                    self._mark_served(event)

    def _check_keys(self) -> bool:
        """File what is left by its own keys, once; return False where that was done before."""
        checked = [run.check_keys() for run in self._runs.values()]
        return any(checked)

    def _may_be_new(self, call: Call) -> bool:
        """Return True where a call that nobody recorded may be made."""
        return False

    def _shape_of(self, event: RecordedEvent) -> Shape:
        shape = self._shapes.get(event.n)
        if shape is None:
            shape = self._shapes[event.n] = self._shaper.shape(
                event.kind, event.name, event.request, event.run, is_final=True
            )
        return shape

    def _answered_tokens(self, event: RecordedEvent) -> Iterator[tuple[str, str]]:
        yield from self._shaper.tokens_in(event.value)
        if event.error is not None:
            yield from self._shaper.tokens_in([event.error.message, event.error.data])

    # Which recorded call

    def _find(self, call: Call, shape: Shape, run: str) -> RecordedEvent | None:
        playable = self._playable(run)
        if self._order == "strict":
            event = self._next_in_order()
            if event is None or all(event.run != one.name for one in playable) or not self._fits(event, shape):
                return None
            self._live[run] = self._runs[event.run]
            return event
        lanes = [(lane, value) for lane, value in (("id", call.call_id), ("in", call.scope)) if value]
        for waiting in playable:
            event = waiting.find(shape, self._renaming, lanes)
            if event is not None:
                self._live[run] = waiting
                return event
        return None

    def _playable(self, run: str) -> list[WaitingRun]:
        """Return the recorded runs that a live run may play: its own, or before its first call those nobody plays."""
        if (bound := self._live.get(run)) is not None and not bound.is_over:
            return [bound]
        if len(self._runs) == 1:
            return list(self._runs.values())
        # A name may be used again once the run that it stood for is over.
        played = {waiting.name for waiting in self._live.values() if not waiting.is_over}
        free = [waiting for waiting in self._runs.values() if waiting.name not in played]
        agent = _agent(run)
        alike = [waiting for waiting in free if _agent(waiting.name) == agent]
        if not any(_agent(name) == agent for name in self._runs):
            # Recorded under other names: in a test, the first run is `main`.
            return free
        return sorted(alike, key=lambda waiting: waiting.name != run)

    def _next_in_order(self) -> RecordedEvent | None:
        while self._next < len(self._in_order) and self._in_order[self._next].n in self._served:
            self._next += 1
        return self._in_order[self._next] if self._next < len(self._in_order) else None

    def _fits(self, event: RecordedEvent, shape: Shape) -> bool:
        recorded = self._shape_of(event)
        return recorded.digest == shape.digest and not self._renaming.conflicts(shape.tokens, recorded.tokens)

    # What is served

    def _take(self, event: RecordedEvent) -> Served | Divergence:
        self._mark_served(event)
        if event.outcome is None:
            what = f"step {event.n} {event.kind} {event.name}"
            text = f"{what}: it never ended when it was recorded (replay diverged)"
            return Divergence(kind="unfinished", text=text, step=event.n, name=event.name)
        children = list(self._descendants(event))
        for child in children:
            self._mark_served(child)
        inside = [(child.call, child.outcome, child.denied) for child in children]
        return Served(outcome=event.outcome, children=inside, decision=event.decision, event=event.n)

    def _mark_served(self, event: RecordedEvent) -> None:
        self._served.add(event.n)
        self._runs[event.run].mark_served(event)

    def _descendants(self, event: RecordedEvent) -> Iterator[RecordedEvent]:
        for child in self._children.get(event.n, ()):
            yield child
            yield from self._descendants(child)

    def _explain(self, call: Call, shape: Shape, run: str) -> Divergence:
        """Say what is different, most telling first. Only this looks for what is near; it is never served."""
        in_order = self._next_in_order() if self._order == "strict" else None
        situation = Situation(
            run=run,
            playable=self._playable(run),
            runs=tuple(self._runs),
            expected=in_order,
            shaper=self._shaper,
            renaming=self._renaming,
        )
        found = explain(call, shape, situation)
        near = next((event for event in self._events if event.n == found.step), None)
        if near is None or "request" not in near.redacted:
            return found
        why = f"step {near.n} was redacted after it was recorded: no request is equal to it any more"
        return replace(found, text=f"{found.text}\n{why}")


def unplayed_line(left: Sequence[RecordedEvent]) -> str | None:
    """Return one line that names recorded calls that were not made; None where there are none."""
    if not left:
        return None
    names = ", ".join(f"#{event.n} {event.kind} {event.name}" for event in left[:5])
    more = f" and {len(left) - 5} more" if len(left) > 5 else ""
    return f"{len(left)} recorded {'step' if len(left) == 1 else 'steps'} not replayed: {names}{more}"


def would_match(
    event: RecordedEvent, request: Mapping[str, Json], shaper: Shaper | None = None, known: Renaming | None = None
) -> bool:
    """Return True where a request is the recorded one, as far as its content tells. Keeps nothing.

    Args:
        event: The recorded call.
        request: The one in question, of the same kind and name.
        shaper: What is ignored, and which tokens may be renamed; the default configuration by default.
        known: What tokens stand for already; nothing by default.
    """
    shaper = shaper or default_shaper()
    live = shaper.shape(event.kind, event.name, request)
    recorded = shaper.shape(event.kind, event.name, event.request)
    return live.digest == recorded.digest and not (known or Renaming()).conflicts(live.tokens, recorded.tokens)


def _agent(run: str) -> str:
    """Return the agent of a run: the runs of one agent are `agent`, `agent#2` ..."""
    return run.partition("#")[0]


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
