"""A recording of a run that replayed the beginning of another one and then went live."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from oao_harness.journal.forking import forked
from oao_harness.journal.matcher import Matcher
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.replay import Served
from oao_hookspecs import Record

ALLOW = {"verdict": "allow", "rule": "default", "plugin": "oao"}
DENY = {"verdict": "deny", "rule": "denied_tools", "plugin": "oao"}
Tape = list[tuple[str, Record]]


class Taper:
    """Writes a tape, one record a second."""

    def __init__(self, start: float = 5000.0) -> None:
        self.tape: Tape = []
        self._at = start

    def add(self, run: str = "main", **fields: Any) -> None:
        self._at += 1.0
        self.tape.append((run, {"v": 1, "seq": len(self.tape), "at": self._at, **fields}))

    def call(self, n: int, name: str, *, decision: Any = ALLOW, **fields: Any) -> None:
        kind = "model" if name.startswith("gpt") else "tool"
        self.add(type="call", n=n, kind=kind, name=name, decision=decision, **{"req": {"of": name}, **fields})

    def outcome(self, n: int, event: int | None = None, **fields: Any) -> None:
        more = {"replayed": True, "event": event} if event is not None else {}
        self.add(type="outcome", n=n, duration_s=0.5, **{"res": f"result {n}", **more, **fields})


def record(*names: str) -> tuple[Recording, Tape]:
    taper = Taper(1000.0)
    for n, name in enumerate(names, start=1):
        taper.call(n, name)
        taper.outcome(n)
    return Recording.from_records(taper.tape, test="t.py::test", policy="strict"), taper.tape


def check(recording: Recording) -> None:
    """What every recording keeps."""
    assert [event.n for event in recording.events] == list(range(1, len(recording.events) + 1))
    numbers = {event.n for event in recording.events}
    for event in recording.events:
        assert event.start <= event.end
        for reference in (event.parent, event.batch):
            assert reference is None or reference in numbers - {event.n}


def test_the_served_prefix_is_kept_and_what_was_made_follows() -> None:
    """Two of three steps were served; the third asked for something else, and one more followed."""
    old, _ = record("look", "ask", "pay")
    taper = Taper()
    for n, name in enumerate(("look", "ask"), start=1):
        taper.call(n, name)
        taper.outcome(n, event=n)
    taper.call(3, "refund")
    taper.outcome(3)
    taper.call(4, "note")
    taper.outcome(4)

    new = forked(old, {1, 2}, taper.tape, policy="strict")

    assert new.events[:2] == old.events[:2]
    assert [(event.n, event.name, event.start, event.end) for event in new.events] == [
        (1, "look", 1, 2),
        (2, "ask", 3, 4),
        (3, "refund", 5, 6),
        (4, "note", 7, 8),
    ]
    # The last served step ended 4 s after the recording began; the next one ended two records later.
    assert [event.at for event in new.events] == [1.0, 3.0, 5.0, 7.0]
    assert (new.test, new.header["clock"]) == ("t.py::test", old.header["clock"])
    check(new)


def test_batch_and_parent_point_at_the_new_numbers() -> None:
    """The model's answer was served, one of the tools it asked for too; the other was made, and made a call itself."""
    taper = Taper(1000.0)
    taper.call(1, "gpt")
    taper.outcome(1, batch=["a", "b"])
    taper.call(2, "left", call_id="a")
    taper.call(3, "inner", parent=2)
    taper.outcome(3)
    taper.outcome(2)
    taper.call(4, "right", call_id="b")
    taper.outcome(4)
    old = Recording.from_records(taper.tape)
    live = Taper()
    live.call(1, "gpt")
    live.outcome(1, event=1, batch=["a", "b"])
    live.call(2, "right", call_id="b", req={"of": "another"})
    live.call(3, "inner", parent=2)
    live.call(4, "left", call_id="a")
    live.outcome(4, event=2)
    live.outcome(3)
    live.outcome(2)

    new = forked(old, {1, 2}, live.tape)

    told = {(event.n, event.name, event.parent, event.batch) for event in new.events}
    by_name = {event.request["of"]: event.n for event in new.events if event.name != "inner"}
    left, another = by_name["left"], by_name["another"]
    inner = {event.parent: event.n for event in new.events if event.name == "inner"}
    assert told == {
        (1, "gpt", None, None),
        (left, "left", None, 1),
        (another, "right", None, 1),
        (inner[left], "inner", left, None),
        (inner[another], "inner", another, None),
    }
    check(new)


def test_calls_inside_a_live_tool_may_have_been_served() -> None:
    """Tools live, models recorded: the answer stays, inside of the call that was made this time."""
    taper = Taper(1000.0)
    taper.call(1, "outer")
    taper.call(2, "gpt", parent=1, req={"messages": []})
    taper.outcome(2)
    taper.outcome(1)
    old = Recording.from_records(taper.tape)
    live = Taper()
    live.call(1, "outer")
    live.call(2, "gpt", parent=1, req={"messages": []})
    live.outcome(2, event=2)
    live.outcome(1, res="other")

    new = forked(old, {2}, live.tape)

    assert [(event.n, event.name, event.parent) for event in new.events] == [(1, "outer", None), (2, "gpt", 1)]
    assert isinstance(Matcher(new).serve(new.events[0].call, "main"), Served)
    check(new)


def test_a_served_denial_is_not_recorded_twice() -> None:
    """A denied call has no outcome that says which recorded one it was."""
    taper = Taper(1000.0)
    taper.call(1, "pay", decision=DENY)
    taper.call(2, "note")
    taper.outcome(2)
    old = Recording.from_records(taper.tape)
    live = Taper()
    live.call(1, "pay", decision=DENY)
    live.call(2, "log")
    live.outcome(2)

    new = forked(old, {1}, live.tape)

    assert [(event.name, event.decision) for event in new.events] == [
        ("pay", "deny denied_tools"),
        ("log", "allow default"),
    ]
    check(new)


def test_a_call_on_its_way_while_another_was_served_overlaps_it() -> None:
    """Next time either may come first."""
    old, _ = record("a", "b")
    live = Taper()
    live.call(1, "x")
    live.call(2, "a")
    live.outcome(2, event=1)
    live.outcome(1)
    new = forked(old, {1}, live.tape)
    a, x = (next(event for event in new.events if event.name == name) for name in "ax")

    for order in ((a, x), (x, a)):
        matcher = Matcher(new)
        assert all(isinstance(matcher.serve(event.call, "main"), Served) for event in order)


def test_what_the_file_says_and_oao_does_not_know_is_kept() -> None:
    """Fields of a newer oao, of the document and of its events."""
    old, _ = record("a")
    old = replace(old, extra={"note": "x"}, events=(replace(old.events[0], extra={"lane": 3}),))
    live = Taper()
    live.call(1, "a")
    live.outcome(1, event=1)

    document = forked(old, {1}, live.tape).to_json()

    assert document["note"] == "x"
    events: Any = document["events"]
    assert events[0]["lane"] == 3


@st.composite
def forks(draw: st.DrawFn) -> tuple[Recording, set[int], Tape, int]:
    """A recording with calls inside of each other and side by side, how much was served, and a tape."""
    taper = Taper(1000.0)
    running: list[int] = []
    count = draw(st.integers(0, 8))
    n = 0
    while n < count or running:
        if n < count and (not running or draw(st.booleans())):
            n += 1
            parent = draw(st.sampled_from([None, *running]))
            taper.call(n, f"tool{n}", **({} if parent is None else {"parent": parent}))
            running.append(n)
        else:
            # A call ends after those inside of it.
            open_parents = {record.get("parent") for _, record in taper.tape if record["n"] in running}
            ended = draw(st.sampled_from([one for one in running if one not in open_parents] or running))
            taper.outcome(ended)
            running.remove(ended)
    old = Recording.from_records(taper.tape, test="t")
    tops = [event for event in old.events if event.parent is None]
    served_count = draw(st.integers(0, len(tops)))
    live = Taper()
    waiting: list[tuple[int, int | None]] = []
    number = 0
    todo: list[RecordedEvent | None] = [*tops[:served_count], *[None] * draw(st.integers(0, 4))]
    while todo or waiting:
        if todo and (not waiting or draw(st.booleans())):
            event = todo.pop(0)
            number += 1
            live.call(number, event.name if event else f"live{number}")
            waiting.append((number, event.n if event else None))
        else:
            ended, recorded = waiting.pop(draw(st.integers(0, len(waiting) - 1)))
            live.outcome(ended, event=recorded)
    made = sum(record["type"] == "call" for _, record in live.tape) - served_count
    return old, {event.n for event in tops[:served_count]}, live.tape, made


@given(forks())
def test_any_fork_keeps_what_was_served_and_can_be_played(case: tuple[Recording, set[int], Tape, int]) -> None:
    """Numbers are dense, served events verbatim, nothing is lost, and the tape's own order replays."""
    old, served, tape, made = case

    new = forked(old, served, tape)

    check(new)
    inside = set(served)
    for event in old.events:
        inside |= {event.n} if event.parent in inside else set()
    kept = [event for event in old.events if event.n in inside]
    assert len(new.events) == len(kept) + made

    def bare(event: RecordedEvent) -> RecordedEvent:
        return replace(event, n=0, parent=None, batch=None)

    assert [bare(event) for event in new.events if not event.name.startswith("live")] == list(map(bare, kept))
    by_name = {event.name: event for event in new.events}
    names = {event.n: event.name for event in old.events}
    for event in kept:
        parent = by_name[event.name].parent
        assert (None if parent is None else new.events[parent - 1].name) == names.get(event.parent or 0)
    matcher = Matcher(new)
    for _, one in tape:
        if one["type"] == "call":
            assert isinstance(matcher.serve(by_name[str(one["name"])].call, "main"), Served)
    assert matcher.unplayed() == []


@given(forks())
def test_a_fork_of_a_fork_that_serves_all_is_the_same(case: tuple[Recording, set[int], Tape, int]) -> None:
    """Nothing new was made: nothing changes but the header."""
    old, served, tape, _ = case
    once = forked(old, served, tape)
    everything = {event.n for event in once.events}
    taper = Taper()
    for n, event in enumerate((event for event in once.events if event.parent is None), start=1):
        taper.call(n, event.name)
        taper.outcome(n, event=event.n)

    assert forked(once, everything, taper.tape).events == once.events
