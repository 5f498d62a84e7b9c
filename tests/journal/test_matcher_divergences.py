"""The page of divergences: one message of each kind, as a person reads it, kept as a golden file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from oao_harness.journal.matcher import Matcher, Order
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.replay import Divergence, Served
from oao_hookspecs import Call, Json, ModelCall, ToolCall

PAGE = Path(__file__).parent / "golden" / "divergences.txt"
RULES = (
    "You are a careful travel agent.\nAnswer in the language of the customer.\nNever book without approval.\nBe brief."
)
LOOKUP: dict[str, Json] = {"name": "lookup_order", "description": "Find an order.", "parameters": {"id": "string"}}
REFUND: dict[str, Json] = {"name": "refund", "description": "Pay money back.", "parameters": {"amount": "number"}}
CANCEL: dict[str, Json] = {"name": "cancel_booking", "description": "Cancel a booking.", "parameters": {"id": "string"}}
CALL_A, CALL_B = "call_9pRXa71bQkLmZ2vN0TtYcWq3", "call_b6Kd82MzPq0XyT5uRw1LsVn7"
OLD_ID, NEW_ID = "1f0c2a9e-5b7d-4e3a-9c1d-2b8f6a7e4d10", "c7d8e9f0-1a2b-4c3d-8e4f-5a6b7c8d9e0f"
OTHER_ID = "77777777-1a2b-4c3d-8e4f-5a6b7c8d9e0f"


def says(role: str, content: str, **more: Json) -> dict[str, Json]:
    return {"role": role, "content": content, **more}


def asks(
    *messages: dict[str, Json], name: str = "gpt-x", tools: Sequence[Any] = (LOOKUP, REFUND), **params: Json
) -> ModelCall:
    return ModelCall(name=name, messages=messages, tools=tools, params={"temperature": 0, **params})


def does(name: str, call_id: str | None = None, **arguments: Json) -> ToolCall:
    return ToolCall(name=name, arguments=arguments, call_id=call_id)


SYSTEM = says("system", RULES)
USER = says("user", "Refund orders 123 and 456.")
WANTS = says(
    "assistant",
    "",
    calls=[
        {"id": CALL_A, "name": "lookup_order", "args": {"id": "123"}},
        {"id": CALL_B, "name": "lookup_order", "args": {"id": "456"}},
    ],
)
RESULT_A = says("tool", "paid 49.99 EUR by card on Monday, not yet shipped", call_id=CALL_A)
RESULT_B = says("tool", "paid 12.50 EUR by invoice on Friday, delivered", call_id=CALL_B)
FIRST, SECOND = asks(SYSTEM, USER), asks(SYSTEM, USER, WANTS, RESULT_A, RESULT_B)
LOOKUP_A, LOOKUP_B = does("lookup_order", CALL_A, id="123"), does("lookup_order", CALL_B, id="456")
REFUNDS = does("refund", id="123", amount=49.99, trace=OLD_ID)
NOTIFY = does("notify", text="Your refund is on its way.", trace=OLD_ID)


def event(n: int, call: Call, value: Json = "ok", **more: Any) -> RecordedEvent:
    return RecordedEvent(
        n=n,
        kind=call.kind,
        name=call.name,
        run="main",
        start=2 * n,
        end=2 * n + 1,
        request=call.request,
        key="",
        value=value,
        call_id=call.call_id,
        **more,
    )


EVENTS = (
    event(1, FIRST, {"message": WANTS}),
    event(2, LOOKUP_A, RESULT_A["content"], batch=1),
    event(3, LOOKUP_B, RESULT_B["content"], batch=1),
    event(4, SECOND, {"message": says("assistant", "Both can be refunded.")}),
    event(5, REFUNDS),
    event(6, NOTIFY),
)
BEFORE: tuple[Call, ...] = (
    FIRST,
    LOOKUP_A,
    LOOKUP_B,
    SECOND,
    does("refund", id="123", amount=49.99, trace=NEW_ID),
    does("notify", text="Your refund is on its way.", trace=NEW_ID),
)


def diverging(
    matched: int, call: Call, order: Order = "causal", events: Sequence[RecordedEvent] = EVENTS, run: str = "main"
) -> Divergence:
    matcher = Matcher(Recording(events=tuple(events)), order=order)
    for one in BEFORE[:matched]:
        assert isinstance(matcher.serve(one, "main"), Served)
    answer = matcher.serve(call, run)
    assert isinstance(answer, Divergence), answer
    return answer


def with_text(message: dict[str, Json], old: str, new: str) -> dict[str, Json]:
    assert old in str(message["content"])
    return {**message, "content": str(message["content"]).replace(old, new)}


# ruff: noqa: E501 - a page reads better with an entry to a line
def page() -> list[tuple[str, Divergence]]:
    changed_prompt = with_text(SYSTEM, "without approval", "above 500 EUR without approval")
    changed_args = says(
        "assistant", "", calls=[WANTS["calls"][0], {"id": CALL_B, "name": "lookup_order", "args": {"id": "465"}}]
    )  # type: ignore[index]
    swapped = asks(SYSTEM, USER, WANTS, {**RESULT_A, "call_id": CALL_B}, {**RESULT_B, "call_id": CALL_A})
    long = says("system", RULES + "\n" + "\n".join(f"Rule {i}: be {'kind' * i}." for i in range(1, 40)))
    return [
        ("a changed prompt, parameter and tool", diverging(0, asks(changed_prompt, USER, tools=(LOOKUP, REFUND, CANCEL), temperature=0.2))),
        ("a changed user message", diverging(0, asks(SYSTEM, with_text(USER, "123", "124")))),
        ("a changed tool result", diverging(3, asks(SYSTEM, USER, WANTS, with_text(RESULT_A, "49.99", "44.99"), RESULT_B))),
        ("a changed tool call in the history", diverging(3, asks(SYSTEM, USER, changed_args, RESULT_A, RESULT_B))),
        ("a message more", diverging(3, asks(SYSTEM, says("user", "Hello?"), USER, WANTS, RESULT_A, RESULT_B))),
        ("a message less", diverging(3, asks(SYSTEM, USER, WANTS, RESULT_A))),
        ("two messages in another order", diverging(3, asks(USER, SYSTEM, WANTS, RESULT_A, RESULT_B))),
        ("a changed description of a tool", diverging(0, asks(SYSTEM, USER, tools=(LOOKUP, {**REFUND, "description": "Pay money back at once."})))),
        ("a prompt that is all new", diverging(0, asks(long, says("user", "Hi!"), tools=()))),
        ("another model", diverging(0, replace(FIRST, name="gpt-y"))),
        ("a changed argument", diverging(4, does("refund", id="123", amount=499.9, trace=NEW_ID))),
        ("an argument more, one less", diverging(4, does("refund", id="123", trace=NEW_ID, currency="EUR"))),
        ("swapped results of tools", diverging(3, swapped)),
        ("an id where the recording has another one", diverging(5, replace(NOTIFY, arguments={**NOTIFY.arguments, "trace": OTHER_ID}))),
        ("too early", diverging(1, SECOND)),
        ("too early, in strict order", diverging(1, LOOKUP_B, "strict")),
        ("once more", diverging(3, LOOKUP_A)),
        ("something else", diverging(4, does("search", q="weather"))),
        ("another run", diverging(1, FIRST, events=[*EVENTS, *(replace(one, n=one.n + 6, run="agent") for one in EVENTS)], run="main#2")),
        ("after the end", diverging(6, FIRST)),
        ("more than was recorded, of another kind", diverging(6, does("search", q="weather"))),
        ("a call that never ended", diverging(0, FIRST, events=[replace(EVENTS[0], finished=False)])),
    ]  # fmt: skip


def test_the_page_of_divergences_is_as_it_was_read() -> None:
    """One glance tells what changed. To change the page: OAO_GOLDEN=write, then read it."""
    text = "".join(f"--- {title} ({one.kind}, step {one.step})\n{one.text}\n\n" for title, one in page())

    if os.environ.get("OAO_GOLDEN") == "write":
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")

    assert text == PAGE.read_text(encoding="utf-8")


def test_every_message_is_short_and_begins_with_its_place() -> None:
    """The first line stands alone; at most eight differences; no prompt is ever shown whole."""
    for title, one in page():
        lines = one.text.splitlines()
        assert lines[0].endswith("(replay diverged)"), title
        assert one.step is None or f"step {one.step}" in lines[0], title
        assert len(lines) <= 13, title
        assert max(map(len, lines)) <= 320, title
        assert RULES not in one.text
