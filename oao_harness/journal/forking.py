"""A new recording of a run that replayed the beginning of an old one and then went live. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.recording import Recording
from oao_hookspecs import Json, Record

__all__ = ["forked"]


def forked(
    old: Recording,
    served: Iterable[int],
    tape: Sequence[tuple[str, Record]],
    *,
    policy: str = "",
    header: Mapping[str, Json] | None = None,
) -> Recording:
    """Return the recording of what was served and then made.

    Served events are kept as they are, also what happened inside of them: requests, answers, spans, times. What was
    made follows: its ticks come after theirs, and its times go on where theirs end. A call that was made while another
    was served overlaps it, so that either may come first when the new recording is played.

    Args:
        old: The recording that was played.
        served: Numbers of its events that were served.
        tape: What happened, as `(run name, record)` pairs in the order they were written. The outcome of a served call
            says which with `"event"`.
        policy: Name of the policy that is in force.
        header: What else the header says.
    """
    kept = _with_descendants(old.events, served)
    # A request has no number among the calls; what a served call stands for is on no tape.
    calls = [(run, cast("int", one.get("n", 0))) for run, one in tape if one["type"] in {"call", "http"}]
    played = _played(tape, {event.n: event for event in kept})
    made = Recording.from_records(tape, test=old.test, policy=policy, clock=_clock(tape, kept, played), header=header)
    numbers = {made.events[i].n: played.get(call) for i, call in enumerate(calls)}
    fresh = [event for event in made.events if numbers[event.n] is None]
    on_tape = {cast("int", numbers[event.n]): event for event in made.events if numbers[event.n] is not None}
    live = _after(fresh, kept, on_tape)
    # What is on the tape says in which order they began; an event inside of a served one is not.
    whole = sorted([(event.start, 1, event.n) for event in kept] + [(event.start, 0, event.n) for event in live])
    new_number = {(is_kept, n): index for index, (_, is_kept, n) in enumerate(whole, start=1)}

    def of_old(n: int | None) -> int | None:
        return None if n is None else new_number.get((1, n))

    def of_tape(n: int | None) -> int | None:
        if n is None:
            return None
        event = numbers.get(n)
        return new_number.get((0, n)) if event is None else of_old(event)

    def kept_as(event: RecordedEvent) -> RecordedEvent:
        # Inside of a call that was made this time, where only what it called was served.
        again = on_tape.get(event.n)
        parent, batch = of_old(event.parent), of_old(event.batch)
        if again is not None:
            parent = of_tape(again.parent) if parent is None else parent
            batch = of_tape(again.batch) if batch is None else batch
        return replace(event, n=new_number[1, event.n], parent=parent, batch=batch)

    events = [kept_as(event) for event in kept]
    events += [
        replace(event, n=new_number[0, event.n], parent=of_tape(event.parent), batch=of_tape(event.batch))
        for event in live
    ]
    clock: dict[str, Json] = {"clock": old.header["clock"]} if kept and "clock" in old.header else {}
    return Recording(
        test=old.test,
        events=tuple(sorted(events, key=lambda event: event.n)),
        header={**old.header, **made.header, **clock},
        extra=old.extra,
    )


def _with_descendants(events: Sequence[RecordedEvent], served: Iterable[int]) -> list[RecordedEvent]:
    """Return the served events and what happened inside of them, in recorded order: a parent stands first."""
    kept = set(served)
    for event in sorted(events, key=lambda event: event.n):
        if event.parent in kept:
            kept.add(event.n)
    return [event for event in events if event.n in kept]


def _played(tape: Sequence[tuple[str, Record]], kept: Mapping[int, RecordedEvent]) -> dict[tuple[str, int], int]:
    """Return which event each served call of the tape is, by run and number of the call."""
    played: dict[tuple[str, int], int] = {}
    ended: set[tuple[str, int]] = set()
    for run, record in tape:
        if record["type"] == "outcome":
            call, event = (run, cast("int", record["n"])), record.get("event")
            ended.add(call)
            if isinstance(event, int) and event in kept:
                played[call] = event
    # A call that was denied has no outcome to say it: then as now it is the same request.
    denied = [event for event in kept.values() if event.denied and event.n not in set(played.values())]
    for run, record in tape:
        if record["type"] != "call" or (run, cast("int", record["n"])) in ended:
            continue
        if cast("Mapping[str, Json]", record["decision"])["verdict"] != "deny":
            continue
        asked = cast("Mapping[str, Json]", record.get("given") or record["req"])
        same = [
            event
            for event in denied
            if (event.kind, event.name) == (record["kind"], record["name"]) and event.request == asked
        ]
        if same:
            played[run, cast("int", record["n"])] = same[0].n
            denied.remove(same[0])
    return played


def _clock(
    tape: Sequence[tuple[str, Record]], kept: Sequence[RecordedEvent], played: Mapping[tuple[str, int], int]
) -> float | None:
    """Return when the clock began for what was made: so that its times go on after the last one that was served."""
    times = [event.at for event in kept if event.at is not None]
    last = None
    for run, record in tape:
        if record["type"] not in {"call", "outcome"}:
            continue
        if (run, cast("int", record["n"])) in played or last is None:
            last = cast("float", record["at"])
    return None if last is None else last - max(times, default=0.0)


def _after(
    fresh: Sequence[RecordedEvent], kept: Sequence[RecordedEvent], on_tape: Mapping[int, RecordedEvent]
) -> list[RecordedEvent]:
    """Return the calls that were made with ticks after those that were served, unless they overlapped.

    Args:
        fresh: The calls that were made, in ticks of the tape.
        kept: The served events, in ticks of the old recording.
        on_tape: The served events as the tape tells them, by their numbers in the old recording.
    """
    offset = max((event.end for event in kept), default=0)
    ticks = sorted({tick for event in fresh for tick in (event.start, event.end)})
    place = {tick: offset + index for index, tick in enumerate(ticks, start=1)}
    live: list[RecordedEvent] = []
    for event in fresh:
        start = place[event.start]
        for one in kept:
            again = on_tape.get(one.n)
            if again is None or again.end < event.start:
                continue
            # It was on its way when the other was asked for, or asked for while the other was on its way.
            start = min(start, one.start if event.start < again.start else one.end)
        live.append(replace(event, start=start, end=place[event.end]))
    return live
