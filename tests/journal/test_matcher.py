"""The matcher: equal requests in the recorded order, recorded overlap may reorder, nothing else passes."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oao_harness.journal.differences import compare
from oao_harness.journal.matcher import Matcher
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import key_of
from oao_harness.journal.replay import Divergence, Served
from oao_hookspecs import Call, Json, ModelCall, ToolCall


def event(n: int, name: str, start: int, end: int, parent: int | None = None, **arguments: Json) -> RecordedEvent:
    return RecordedEvent(
        n=n,
        kind="tool",
        name=name,
        run="",
        start=start,
        end=end,
        request=arguments,
        key=key_of("tool", name, arguments),
        value=f"result {n}",
        parent=parent,
    )


def call(name: str, **arguments: Json) -> Call:
    return ToolCall(name=name, arguments=arguments)


def served(matcher: Matcher, asked: Call) -> Json:
    answer = matcher.serve(asked, "")
    assert isinstance(answer, Served), answer
    return answer.outcome.value


SEQUENCE = Recording(events=(event(1, "a", 1, 2, x=1), event(2, "b", 3, 4, x=1), event(3, "a", 5, 6, x=1)))


def test_a_sequence_is_served_in_its_order() -> None:
    """Identical requests get their own answers, one after the other."""
    matcher = Matcher(SEQUENCE)

    assert [served(matcher, call(name, x=1)) for name in "aba"] == ["result 1", "result 2", "result 3"]
    assert matcher.unplayed_text() is None


@pytest.mark.parametrize(
    ("before", "asked", "message"),
    [
        ("", call("b", x=1), "step 2 tool b came before tool a #1 (replay diverged)"),
        ("", call("a", x=2), "step 1 tool a: x 1 -> 2 (replay diverged)"),
        ("", call("a", x=1.0), "step 1 tool a: x 1 -> 1.0 (replay diverged)"),
        ("", call("a", x=True), "step 1 tool a: x 1 -> true (replay diverged)"),
        ("", call("a"), "step 1 tool a: x missing (replay diverged)"),
        ("", call("a", x=1, y=2), "step 1 tool a: y added (replay diverged)"),
        ("", call("c"), "step 1: tool c instead of tool a (replay diverged)"),
        ("aba", call("a", x=1), "step 4 tool a: 3rd identical call, recorded 2 (replay diverged)"),
        ("aba", call("c"), "step 4 tool c: the recording ends after 3 steps (replay diverged)"),
    ],
)
def test_every_difference_is_told_in_one_line(before: str, asked: Call, message: str) -> None:
    """Place and concrete change: it is all that a summary shows."""
    matcher = Matcher(SEQUENCE)
    for name in before:
        served(matcher, call(name, x=1))

    answer = matcher.serve(asked, "")

    assert isinstance(answer, Divergence)
    assert answer.text.splitlines()[0] == message


def test_what_was_not_asked_for_is_named() -> None:
    """At the end of the run."""
    matcher = Matcher(SEQUENCE)
    served(matcher, call("a", x=1))

    assert matcher.unplayed_text() == "2 recorded steps not replayed: #2 tool b, #3 tool a"


def test_calls_that_overlapped_may_come_in_any_order() -> None:
    """a and b overlapped, c came after both."""
    events = (event(1, "a", 1, 4), event(2, "b", 2, 3), event(3, "c", 5, 6))
    for order in itertools.permutations("abc"):
        matcher = Matcher(Recording(events=events))
        answers = [matcher.serve(call(name), "") for name in order]
        assert all(isinstance(answer, Served) for answer in answers) == (order[2] == "c"), order


def test_of_equal_calls_the_denied_one_comes_last() -> None:
    """A stream was open when the same was asked for once more, and a limit denied that."""
    denied = dataclasses.replace(event(2, "a", 2, 2), decision="deny max_tool_calls", value=None)
    matcher = Matcher(Recording(events=(event(1, "a", 1, 3), denied)))

    answers = [matcher.serve(call("a"), "") for _ in range(2)]

    assert [answer.decision for answer in answers if isinstance(answer, Served)] == ["allow", "deny max_tool_calls"]


def test_the_calls_of_one_answer_may_come_in_any_order() -> None:
    """Recorded one after the other by chance; what came after all of them still comes after all of them."""
    batch = [
        dataclasses.replace(event(n, name, 2 * n, 2 * n + 1), batch=1, call_id=f"call_{n}")
        for n, name in ((2, "a"), (3, "b"), (4, "a"))
    ]
    events = (event(1, "ask", 1, 2), *batch, event(5, "c", 10, 11))
    for order in set(itertools.permutations("aab")):
        matcher = Matcher(Recording(events=events))
        served(matcher, call("ask"))
        assert isinstance(matcher.serve(call("c"), ""), Divergence)
        matcher = Matcher(Recording(events=events))
        for name in ("ask", *order, "c"):
            served(matcher, call(name))
        assert matcher.unplayed_text() is None


def test_equal_calls_of_one_answer_keep_their_ids() -> None:
    """Each gets the result of the call that the model gave this id."""
    events = tuple(dataclasses.replace(event(n, "a", n, n + 5), call_id=f"call_{n}", batch=9) for n in (1, 2, 3))
    matcher = Matcher(Recording(events=events))

    asked = [ToolCall(name="a", arguments={}, call_id=f"call_{n}") for n in (3, 1, 2)]

    assert [served(matcher, one) for one in asked] == ["result 3", "result 1", "result 2"]


def test_a_served_call_stands_for_what_happened_inside_of_it() -> None:
    """Its children are not asked for again, and their totals come with it."""
    events = (event(1, "outer", 1, 6), event(2, "inner", 2, 5, parent=1), event(3, "leaf", 3, 4, parent=2))
    matcher = Matcher(Recording(events=events))

    answer = matcher.serve(call("outer"), "")

    assert isinstance(answer, Served)
    assert [child.name for child, _, _ in answer.children] == ["inner", "leaf"]
    assert matcher.unplayed() == []


def test_offered_tools_are_told_by_their_names() -> None:
    """Not by their places: a reader knows what a tool is called."""
    search, fetch = ({"type": "function", "function": {"name": n, "description": "Old."}} for n in ("search", "fetch"))
    newer = {"type": "function", "function": {"name": "search", "description": "New."}}

    def told(*tools: Json) -> str:
        return compare("model", {"tools": [search, fetch]}, {"tools": list(tools)}).headline

    assert told(fetch) == "offered tools changed: search missing"
    assert told(search) == "offered tools changed: fetch missing"
    assert told(newer, fetch) == 'offered tools changed: search.function.description "Old." -> "New."'
    assert told(fetch, search) == "offered tools changed: tools[1] moved to [0]"
    differences = compare("model", {"tools": [search, fetch]}, {"tools": [newer, fetch]}).differences
    assert [one.line for one in differences] == ['~ tools.search.function.description: "Old." -> "New."']


def conversation(*texts: str, **params: Json) -> ModelCall:
    roles = itertools.cycle(("system", "user", "assistant"))
    messages = [{"role": next(roles), "content": text} for text in texts]
    return ModelCall(name="gpt-x", messages=messages, params=params, tools=[{"name": "search"}])


RECORDED = conversation("Be careful.\nNever book a flight without approval of a person.", "hi", temperature=0)


@pytest.mark.parametrize(
    ("asked", "headline", "detail"),
    [
        (
            conversation("Be careful.\nNever book a train without approval of a person.", "hi", temperature=0),
            "system prompt changed",
            "~ messages[0].content line 2: Never book a [-flight-]{+train+} without approval of a person.",
        ),
        (conversation(RECORDED.messages[0]["content"], "ho", temperature=0), "user message changed", '"hi" -> "ho"'),  # type: ignore[arg-type]
        (
            conversation(RECORDED.messages[0]["content"], temperature=0),
            "user message missing (2 -> 1 messages)",
            "- messages[1]",
        ),  # type: ignore[arg-type]
        (
            conversation(RECORDED.messages[0]["content"], "hi", temperature=1),
            "temperature 0 -> 1",
            "~ temperature: 0 -> 1",
        ),  # type: ignore[arg-type]
        (conversation(RECORDED.messages[0]["content"], "hi"), "temperature missing", "- temperature: 0"),  # type: ignore[arg-type]
    ],
)
def test_a_changed_prompt_is_told_by_words(asked: ModelCall, headline: str, detail: str) -> None:
    """The first line says what, the lines below where; never a whole prompt."""
    request = RECORDED.request
    recorded = RecordedEvent(
        n=1, kind="model", name="gpt-x", run="", start=1, end=2, request=request, key=key_of("model", "gpt-x", request)
    )

    answer = Matcher(Recording(events=(recorded,))).serve(asked, "")

    assert isinstance(answer, Divergence)
    lines = answer.text.splitlines()
    assert lines[0] == f"step 1 model gpt-x: {headline} (replay diverged)"
    assert detail in "\n".join(lines[1:])


@st.composite
def recordings(draw: st.DrawFn) -> tuple[RecordedEvent, ...]:
    count = draw(st.integers(1, 6))
    ticks = draw(st.permutations(range(2 * count)))
    spans = sorted(tuple(sorted(ticks[2 * i : 2 * i + 2])) for i in range(count))
    names = draw(st.lists(st.sampled_from("ab"), min_size=count, max_size=count))
    return tuple(event(n, names[n - 1], start, end) for n, (start, end) in enumerate(spans, start=1))


def linear_extensions(events: tuple[RecordedEvent, ...]) -> set[str]:
    """Every order of names that keeps what had ended before what started: the slow, obvious way."""
    orders: set[str] = set()

    def walk(left: tuple[RecordedEvent, ...], order: str) -> None:
        if not left:
            orders.add(order)
        for one in left:
            if not any(other.end < one.start for other in left):
                walk(tuple(other for other in left if other is not one), order + one.name)

    walk(events, "")
    return orders


@given(recordings(), st.data())
def test_exactly_the_allowed_orders_are_accepted(events: tuple[RecordedEvent, ...], data: st.DataObject) -> None:
    """Property: an order of requests is played to its end iff it extends the recorded one."""
    names = [one.name for one in events]
    order = "".join(data.draw(st.permutations(names)))
    matcher = Matcher(Recording(events=events))

    accepted = all(isinstance(matcher.serve(call(name), ""), Served) for name in order)

    assert accepted == (order in linear_extensions(events)), order
