"""Serves the recorded HTTP of agents and tools beside their calls.

That is what calls send whose bodies run, and what is sent outside of any call. The requests inside of a call that is
itself served are never asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from oao_harness.journal.events import HTTP, HttpCall
from oao_harness.journal.exchanges import is_exchange
from oao_harness.journal.live import is_live
from oao_harness.journal.matcher import Matcher, Order, unplayed_line
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import key_of
from oao_harness.journal.replay import Divergence, Served
from oao_harness.journal.tokens import DEFAULT_KINDS
from oao_hookspecs import Call, Json

__all__ = ["HttpReplay", "asked_for", "lane_of_call", "lane_of_run"]


def lane_of_call(kind: str, name: str, request: Mapping[str, Json], which: str) -> str:
    """Return where the requests of one call's body are played: equal calls may swap theirs, others may not.

    Args:
        kind: Of the call.
        name: Of the call.
        request: What it asks for.
        which: Tells equal calls apart.
    """
    return f"{kind} {name} {key_of(kind, name, request)}#{which}"


def lane_of_run(name: str) -> str:
    """Return where the requests that a run makes outside of its calls are played."""
    return f"run {name}"


def asked_for(recording: Recording, live: Sequence[str]) -> list[RecordedEvent]:
    """Return the recorded requests that a replay will ask for: those that no served call stands for.

    Args:
        recording: What was recorded.
        live: What is not replayed; see `is_live`.
    """
    events = {event.n: event for event in recording.events}

    def is_inside_of_served(event: RecordedEvent) -> bool:
        outer = events.get(event.parent) if event.parent is not None else None
        return outer is not None and (not is_live(outer.kind, outer.name, live) or is_inside_of_served(outer))

    return [
        event
        for event in recording.events
        if event.kind == HTTP
        and not is_exchange(event)
        and not is_live(HTTP, event.name, live)
        and not is_inside_of_served(event)
    ]


class HttpReplay:
    """Plays calls and, beside them, the HTTP of what runs. Safe to use from many threads.

    Args:
        calls: Plays the calls.
        recording: The whole recording, as it was made.
        live: What is not replayed; see `is_live`.
        order: See `Matcher`; but for `strict`, requests of one call may come in any order.
        ignore: See `Matcher`.
        volatile: See `Matcher`.
    """

    plays_wire = False
    """See `Replay.plays_wire`."""

    def __init__(
        self,
        calls: Matcher,
        recording: Recording,
        live: Sequence[str] = (),
        *,
        order: Order = "causal",
        ignore: Iterable[str] = (),
        volatile: Iterable[str] = DEFAULT_KINDS,
    ) -> None:
        self._calls = calls
        events = {event.n: event for event in recording.events}
        self._inside: dict[int, list[int]] = defaultdict(list)
        kept: list[RecordedEvent] = []
        for event in recording.events:
            if event.kind != HTTP or is_exchange(event) or is_live(HTTP, event.name, live):
                continue
            outer = event.parent
            while outer is not None:
                self._inside[outer].append(event.n)
                outer = events[outer].parent if outer in events else None
            parent = events.get(event.parent) if event.parent is not None else None
            if parent is None:
                lane = lane_of_run(event.run)
            else:
                lane = lane_of_call(parent.kind, parent.name, parent.request, str(parent.n))
            kept.append(replace(event, run=lane, parent=None))
        # A pool of workers sends the next request when any one has ended: which was first is chance, and no cause.
        # Equal requests are served in the recorded order all the same.
        inner: Order = "strict" if order == "strict" else "any"
        self._http = Matcher(replace(recording, events=tuple(kept)), order=inner, ignore=ignore, volatile=volatile)

    def serve(self, call: Call, run: str) -> Served | Divergence | None:
        """See `Replay.serve`. A request is asked for with its lane in place of the run."""
        if isinstance(call, HttpCall):
            return self._http.serve(call, run)
        found = self._calls.serve(call, run)
        if isinstance(found, Served) and found.event is not None:
            self._http.leave_out(self._inside.get(found.event, ()))
        return found

    def serve_inside(self, call: Call, run: str) -> Served | Divergence | None:
        """See `Replay.serve_inside`."""
        return self._calls.serve_inside(call, run)

    def holds(self, call: Call) -> bool:
        """See `Replay.holds`."""
        return self._calls.holds(call)

    def unplayed_text(self) -> str | None:
        """Return one line that names what nobody asked for; what is inside of an unplayed call is not named."""
        left = self._calls.unplayed()
        inside = {n for event in left for n in self._inside.get(event.n, ())}
        left += [event for event in self._http.unplayed() if event.n not in inside]
        return unplayed_line(sorted(left, key=lambda event: event.n))
