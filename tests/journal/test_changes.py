"""What one recording changes of another, step by step."""

from __future__ import annotations

from dataclasses import replace

from oao_harness.journal.changes import changes
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import key_of
from oao_hookspecs import Json, Usage


def event(
    n: int, name: str, value: Json = "ok", *, kind: str = "tool", call_id: str | None = None, **request: Json
) -> RecordedEvent:
    return RecordedEvent(
        n=n,
        kind=kind,
        name=name,
        run="main",
        start=2 * n - 1,
        end=2 * n,
        request=request,
        key=key_of(kind, name, request),
        value=value,
        call_id=call_id,
        at=float(n),
    )


def test_equal_recordings_change_nothing() -> None:
    """Times, tokens, tries and headers are told apart: they are no change of behaviour."""
    old = Recording(events=(event(1, "a"), event(2, "b")), header={"oao": "1", "at": "monday"})
    new = Recording(
        events=(
            replace(event(1, "a"), at=9.0, took_s=2.0),
            replace(event(2, "b"), usage=Usage(input_tokens=1), attempts=2),
        ),
        header={"oao": "2", "at": "tuesday"},
    )

    found = changes(old, new)

    assert found.behaviour == ()
    assert [step.quiet for step in found.steps] == [("times",), ("usage", "attempts")]
    assert found.header == ('~ oao: "1" -> "2"',)
    assert found.headline == "nothing changed but times, usage, attempts and the header"
    assert changes(old, old).headline == "nothing changed but nothing"


def test_changed_added_and_removed_steps_are_paired() -> None:
    """Equal requests first, then calls of one name; the headline names the first."""
    old = Recording(
        events=(event(1, "look", id="1"), event(2, "refund", amount=49.99), event(3, "note"), event(4, "end"))
    )
    new = Recording(
        events=(
            event(1, "look", id="1"),
            event(2, "refund", amount=52),
            event(3, "mail"),
            event(4, "log"),
            event(5, "end"),
        )
    )

    found = changes(old, new)

    assert [(step.kind, step.event.name) for step in found.steps] == [
        ("equal", "look"),
        ("changed", "refund"),
        ("removed", "note"),
        ("added", "mail"),
        ("added", "log"),
        ("equal", "end"),
    ]
    assert found.steps[1].lines == ("~ amount: 49.99 -> 52",)
    assert found.headline == "1 step changed, 2 added, 1 removed; first: step 2 tool refund: amount 49.99 -> 52"


def test_a_changed_answer_is_told_where_it_was_given_and_not_again() -> None:
    """A conversation that is sent again holds every change before it."""

    def talk(answer: str, last: str) -> Recording:
        said: list[Json] = [{"role": "user", "content": "hi"}]
        first = event(
            1, "gpt", {"message": {"role": "assistant", "content": answer}}, kind="model", messages=list(said)
        )
        said += [{"role": "assistant", "content": answer}, {"role": "user", "content": "more"}]
        second = event(2, "gpt", {"message": {"role": "assistant", "content": last}}, kind="model", messages=list(said))
        said += [{"role": "assistant", "content": last}]
        return Recording(events=(first, second, event(3, "gpt", "x", kind="model", messages=list(said))))

    found = changes(talk("yes", "bye"), talk("no", "bye"))

    assert [(step.kind, step.follows) for step in found.steps] == [
        ("changed", False),
        ("changed", True),
        ("changed", True),
    ]
    assert found.steps[0].lines == ('~ result.message.content: "yes" -> "no"',)
    assert found.headline == '3 steps changed; first: step 1 model gpt: result.message.content "yes" -> "no"'
    both = changes(talk("yes", "bye"), talk("no", "see you"))
    assert [step.lines for step in both.steps[1:]] == [
        ('~ result.message.content: "bye" -> "see you"',),
        ("differs only in what is shown above",),
    ]


def test_ids_that_a_provider_makes_up_are_no_change() -> None:
    """Renamed one to one, they are told apart; two ids that become one are a change."""

    def run(*ids: str) -> Recording:
        calls: list[Json] = [{"id": one, "name": "look"} for one in ids]
        answer: Json = {"role": "assistant", "tool_calls": calls}
        asked: list[Json] = [{"role": "user", "content": "hi"}]
        results: list[Json] = [{"role": "tool", "tool_call_id": one, "content": "ok"} for one in ids]
        return Recording(
            events=(
                event(1, "gpt", {"message": answer}, kind="model", messages=asked),
                *(event(n, "look", call_id=one) for n, one in enumerate(ids, start=2)),
                event(9, "gpt", "done", kind="model", messages=[*asked, answer, *results]),
            )
        )

    found = changes(run("call_a", "call_b"), run("call_x", "call_y"))

    assert found.behaviour == ()
    assert found.quiet == ("ids",)
    assert changes(run("call_a", "call_b"), run("call_x", "call_x")).behaviour


def test_an_answer_verdict_or_error_that_changed_is_a_change() -> None:
    """The request may be the same; 1 and true are not."""
    old = event(1, "a", 1)
    for new in (replace(old, value=True), replace(old, decision="deny x"), replace(old, finished=False)):
        found = changes(Recording(events=(old,)), Recording(events=(new,)))
        assert [step.kind for step in found.steps] == ["changed"]
        assert found.steps[0].lines


def test_a_recording_that_is_not_there_yet_is_added_whole() -> None:
    """Every step is new."""
    found = changes(None, Recording(events=(event(1, "a"), event(2, "b"))))

    assert found.headline == "2 steps added; first: step 1 tool a: added"


def test_what_python_takes_for_equal_is_not_in_json() -> None:
    """True, 1 and 1.0 are three values; lists that tools take are compared as those of a model are."""
    told: list[tuple[Json, Json, str]] = [(1, True, "changed"), (1, 1.0, "changed"), (1, 1, "equal"), ("", "", "equal")]
    for kind in ("tool", "model"):
        for one, other, expected in told:
            old, new = (
                Recording(events=(event(1, "a", kind=kind, messages=[{"n": value}]),)) for value in (one, other)
            )
            assert [step.kind for step in changes(old, new).steps] == [expected], (kind, one, other)


def test_ids_of_a_conversation_that_is_sent_again_are_no_change() -> None:
    """Each turn sends all turns before it, and each has its ids; a changed word is told where it is new."""

    def conversation(letter: str, word: str) -> Recording:
        messages: list[Json] = [{"role": "user", "content": "go"}]
        events: list[RecordedEvent] = []
        for turn in range(6):
            said: Json = {"role": "assistant", "calls": [{"id": f"call_{letter}{turn}", "name": "look"}]}
            events.append(event(len(events) + 1, "m", {"message": said}, kind="model", messages=[*messages]))
            found = word if turn == 3 else f"found {turn}"
            events.append(event(len(events) + 1, "look", found, call_id=f"call_{letter}{turn}"))
            messages += [said, {"role": "tool", "call_id": f"call_{letter}{turn}", "content": found}]
        return Recording(events=tuple(events))

    assert changes(conversation("a", "x"), conversation("b", "x")).headline == "nothing changed but ids"
    told = changes(conversation("a", "x"), conversation("b", "y")).behaviour
    assert [(step.event.n, step.lines) for step in told[:2]] == [
        (8, ('~ result: "x" -> "y"',)),
        (9, ('~ messages[8].content: "x" -> "y"',)),
    ]
    assert [(step.event.n, step.follows) for step in told[2:]] == [(11, True)]
