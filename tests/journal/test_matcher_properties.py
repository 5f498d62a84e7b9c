"""The properties of the matcher, against slow and obvious oracles: what it accepts, what it rejects, what it costs."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oao_harness.journal.matcher import Matcher, Order
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import key_of
from oao_harness.journal.replay import Divergence, Served
from oao_hookspecs import Json, ToolCall

RECORDED_IDS = [f"{i:08x}-0000-4000-8000-000000000000" for i in range(5)]
LIVE_IDS = [f"{i:08x}-1111-4111-8111-111111111111" for i in range(6)]


def tool(n: int, name: str, start: int, end: int, **arguments: Json) -> RecordedEvent:
    key = key_of("tool", name, arguments)
    return RecordedEvent(
        n=n, kind="tool", name=name, run="", start=start, end=end, request=arguments, key=key, value=f"result {n}"
    )


@st.composite
def spans(draw: st.DrawFn, most: int = 6) -> list[tuple[int, int]]:
    count = draw(st.integers(1, most))
    ticks = draw(st.permutations(range(2 * count)))
    return sorted((min(pair), max(pair)) for pair in (ticks[2 * i : 2 * i + 2] for i in range(count)))


@st.composite
def with_ids(draw: st.DrawFn) -> tuple[RecordedEvent, ...]:
    """Events of different names, so that it is plain which call is which; ids in values and in keys."""
    events: list[RecordedEvent] = []
    for n, (start, end) in enumerate(draw(spans()), start=1):
        ids = [RECORDED_IDS[i] for i in draw(st.lists(st.integers(0, 4), max_size=3))]
        keyed = {RECORDED_IDS[i]: i for i in draw(st.sets(st.integers(0, 4), max_size=2))}
        events.append(tool(n, f"t{n}", start, end, ids=list(ids), text=f"see {' and '.join(ids)}.", keyed=keyed))
    return tuple(events)


def ids_of(event: RecordedEvent) -> list[str]:
    return [*event.request["ids"], *event.request["keyed"]]  # type: ignore[list-item, misc]


def allowed_order(events: Sequence[RecordedEvent], data: st.DataObject) -> list[RecordedEvent]:
    left, order = list(events), list[RecordedEvent]()
    while left:
        free = [one for one in left if not any(other.end < one.start for other in left)]
        order.append(data.draw(st.sampled_from(free)))
        left.remove(order[-1])
    return order


def renamed(value: Json, rename: Callable[[str], str]) -> Json:
    if isinstance(value, str):
        for one in RECORDED_IDS:
            value = value.replace(one, rename(one))
        return value
    if isinstance(value, list):
        return [renamed(item, rename) for item in value]
    if isinstance(value, dict):
        return {str(renamed(key, rename)): renamed(item, rename) for key, item in value.items()}
    return value


def live(event: RecordedEvent, rename: Callable[[str], str]) -> ToolCall:
    return ToolCall(name=event.name, arguments={key: renamed(item, rename) for key, item in event.request.items()})


@settings(max_examples=500, deadline=None)
@given(with_ids(), st.data())
def test_any_consistent_renaming_in_any_allowed_order_is_accepted(
    events: tuple[RecordedEvent, ...], data: st.DataObject
) -> None:
    """Property: new ids for the recorded ones, one to one, change nothing; each call gets its own result."""
    names = dict(zip(RECORDED_IDS, data.draw(st.permutations(LIVE_IDS)), strict=False))
    matcher = Matcher(Recording(events=events))

    for event in allowed_order(events, data):
        answer = matcher.serve(live(event, names.__getitem__), "")
        assert isinstance(answer, Served), answer
        assert (answer.outcome.value, answer.event) == (f"result {event.n}", event.n)

    assert matcher.unplayed_text() is None


@settings(max_examples=300, deadline=None)
@given(with_ids(), st.data())
def test_one_id_for_two_recorded_ones_is_rejected(events: tuple[RecordedEvent, ...], data: st.DataObject) -> None:
    """Property: merged ids are a divergence, whichever two and in whatever order."""
    used = sorted({one for event in events for one in event.request["ids"]})  # type: ignore[union-attr]
    assume(len(used) > 1)
    kept, lost = data.draw(st.permutations(used))[:2]
    names = dict(zip(RECORDED_IDS, LIVE_IDS, strict=False))
    names[lost] = names[kept]
    matcher = Matcher(Recording(events=tuple(replace(one, request={**one.request, "keyed": {}}) for one in events)))

    order = [replace(one, request={**one.request, "keyed": {}}) for one in allowed_order(events, data)]
    answers = [matcher.serve(live(event, names.__getitem__), "") for event in order]

    assert "identity" in [answer.kind for answer in answers if isinstance(answer, Divergence)]


@settings(max_examples=300, deadline=None)
@given(with_ids(), st.data())
def test_two_ids_for_one_recorded_one_are_rejected(events: tuple[RecordedEvent, ...], data: st.DataObject) -> None:
    """Property: an id that is another one at one place only is a divergence."""
    places = [(n, one) for n, event in enumerate(events) for one in set(event.request["ids"])]  # type: ignore[arg-type]
    shared = [(n, one) for n, one in places if sum(one == other for event in events for other in ids_of(event)) > 1]
    split = [(n, one) for n, one in shared if any(one in ids_of(other) for i, other in enumerate(events) if i != n)]
    assume(split)
    number, lost = data.draw(st.sampled_from(split))
    names = dict(zip(RECORDED_IDS, LIVE_IDS, strict=False))
    matcher = Matcher(Recording(events=events))

    answers: list[object] = []
    for event in allowed_order(events, data):
        own = {**names, lost: LIVE_IDS[5]} if event is events[number] else names
        answers.append(matcher.serve(live(event, own.__getitem__), ""))

    assert "identity" in [answer.kind for answer in answers if isinstance(answer, Divergence)]


def completable(names: Sequence[str], left: Sequence[RecordedEvent], order: Order) -> bool:
    """Whether these requests can be played one after the other: every choice is tried."""
    if not names:
        return True
    for one in left:
        others = [other for other in left if other is not one]
        blocked = {
            "causal": any(other.end < one.start for other in others),
            "strict": any(other.start < one.start for other in others),
            "any": False,
        }[order]
        if one.name == names[0] and not blocked and completable(names[1:], others, order):
            return True
    return False


@settings(max_examples=120, deadline=None)
@given(
    spans(most=5), st.lists(st.sampled_from("ab"), min_size=5, max_size=5), st.sampled_from(("causal", "strict", "any"))
)
def test_every_order_is_judged_as_the_exhaustive_oracle_does(
    drawn: list[tuple[int, int]], names: list[str], order: Order
) -> None:
    """Property, over all orders of all requests, and all beginnings of them: greedy loses nothing and adds nothing."""
    events = tuple(tool(n, names[n - 1], start, end) for n, (start, end) in enumerate(drawn, start=1))
    for asked in set(itertools.permutations([event.name for event in events])):
        matcher = Matcher(Recording(events=events), order=order)
        accepted = 0
        for name in asked:
            if not isinstance(matcher.serve(ToolCall(name=name, arguments={}), ""), Served):
                break
            accepted += 1
        possible = max(n for n in range(len(asked) + 1) if completable(asked[:n], events, order))
        assert (accepted == len(asked)) == (possible == len(asked)), asked
        assert accepted <= possible, asked


@settings(max_examples=100, deadline=None)
@given(spans(), st.data())
def test_equal_calls_with_new_ids_find_their_own_by_their_lane(
    drawn: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Property: what differs only in ids that are all new is told apart by the id that the model gave the call."""
    events = tuple(
        replace(tool(n, "a", start, end, trace=RECORDED_IDS[n % 5]), call_id=f"c{n}")
        for n, (start, end) in enumerate(drawn[:5], start=1)
    )
    matcher = Matcher(Recording(events=events))
    for event in allowed_order(events, data):
        call = replace(live(event, dict(zip(RECORDED_IDS, LIVE_IDS, strict=False)).__getitem__), call_id=event.call_id)
        answer = matcher.serve(call, "")
        assert isinstance(answer, Served)
        assert answer.event == event.n


def looked_at(count: int, *, overlapping: bool, ids: bool, order: Order = "causal") -> float:
    """Return how many candidates one call costs, where all calls are identical but for their ids."""
    uuid = "{:08x}-0000-4000-8000-00000000000{}".format
    events = tuple(
        tool(
            n,
            "a",
            n if overlapping else 2 * n,
            9 * count + n if overlapping else 2 * n + 1,
            **({"session": uuid(0, 1), "trace": uuid(n, 1)} if ids else {}),
        )
        for n in range(1, count + 1)
    )
    matcher = Matcher(Recording(events=events), order=order)
    for n in range(1, count + 1):
        arguments: dict[str, Json] = {"session": uuid(0, 2), "trace": uuid(count - n + 1, 2)} if ids else {}
        assert isinstance(matcher.serve(ToolCall(name="a", arguments=arguments), ""), Served)
    return matcher.looked_at / count


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("order", ["causal", "any"])
@pytest.mark.parametrize("overlapping", [False, True])
def test_a_call_costs_the_same_in_a_long_recording(overlapping: bool, order: Order, ids: bool) -> None:
    """A thousand identical calls, in a row or at once, with or without new ids: counted work, not time."""
    short, long = (looked_at(count, overlapping=overlapping, ids=ids, order=order) for count in (10, 1000))

    assert long <= short + 0.5
    assert long <= 4


def test_one_known_id_among_a_thousand_is_found_at_once() -> None:
    """Identical calls that differ in an id that is known already are not tried one by one."""
    count = 1000
    uuid = "{:08x}-0000-4000-8000-000000000000".format
    first = tool(1, "all", 1, 2, ids=[uuid(n) for n in range(count)])
    events = tuple(tool(n + 2, "a", 3, 9 + n, id=uuid(n)) for n in range(count))
    matcher = Matcher(Recording(events=(first, *events)))
    new = "{:08x}-1111-4111-8111-111111111111".format
    matcher.serve(ToolCall(name="all", arguments={"ids": [new(n) for n in range(count)]}), "")

    for n in reversed(range(count)):
        answer = matcher.serve(ToolCall(name="a", arguments={"id": new(n)}), "")
        assert isinstance(answer, Served)
        assert answer.event == n + 2

    assert matcher.looked_at <= 4 * count


def test_every_call_is_served_once_from_many_threads() -> None:
    """Eight threads ask for what overlapped; nothing is served twice, nothing is lost."""
    events = tuple(tool(n, "a", n, 1000 + n, x=n % 5) for n in range(1, 401))
    matcher = Matcher(Recording(events=events))
    found: list[int | None] = []
    barrier = threading.Barrier(8)

    def ask(worker: int) -> None:
        barrier.wait(10)
        for n in range(worker + 1, 401, 8):
            answer = matcher.serve(ToolCall(name="a", arguments={"x": n % 5}), "")
            assert isinstance(answer, Served)
            found.append(answer.event)

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(n for n in found if n is not None) == list(range(1, 401))
    assert matcher.unplayed_text() is None
