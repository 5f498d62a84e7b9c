"""What a matcher overlooks and what it does not: tokens, ignored paths, hand-edited files, runs, recording strength."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oao_harness.errors import UsageError
from oao_harness.journal.matcher import Matcher, would_match
from oao_harness.journal.mutation import mutants, strength
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import key_of
from oao_harness.journal.replay import Divergence, Served
from oao_harness.journal.shape import Shaper
from oao_harness.journal.tokens import KINDS, cut
from oao_hookspecs import Json, ModelCall, ToolCall

UUID, NEW = "1f0c2a9e-5b7d-4e3a-9c1d-2b8f6a7e4d10", "c7d8e9f0-1a2b-4c3d-8e4f-5a6b7c8d9e0f"


def tool(n: int, run: str = "", value: Json = "ok", name: str = "a", **arguments: Json) -> RecordedEvent:
    key = key_of("tool", name, arguments)
    return RecordedEvent(
        n=n, kind="tool", name=name, run=run, start=2 * n, end=2 * n + 1, request=arguments, key=key, value=value
    )


def ask(matcher: Matcher, run: str = "", name: str = "a", **arguments: Json) -> int | str | None:
    """Return the number of the event that answers, or the kind of the divergence."""
    answer = matcher.serve(ToolCall(name=name, arguments=arguments), run)
    assert answer is not None
    return answer.event if isinstance(answer, Served) else answer.kind


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (f"see {UUID}.", [("uuid", UUID)]),
        (f"session-{UUID.upper()}", [("uuid", UUID.upper())]),
        ("call_9pRXa71bQkLmZ2vN0TtYcWq3", [("callid", "call_9pRXa71bQkLmZ2vN0TtYcWq3")]),
        ("call_abQkLmZvNTtYcWqRXaKd", [("callid", "call_abQkLmZvNTtYcWqRXaKd")]),
        ("\ncall_9pRXa71bQkLmZ2vN\n", [("callid", "call_9pRXa71bQkLmZ2vN")]),
        ("(toolu_01A09q90qw90lq917835lq9)", [("callid", "toolu_01A09q90qw90lq917835lq9")]),
        ("tooluse_kZJMlvQmRJ6eAyJE5GIl7Q", [("callid", "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q")]),
        ("chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", [("callid", "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT")]),
        (f"run--{UUID}-0", [("callid", f"run--{UUID}-0")]),
        (f"lc_run--{UUID}", [("callid", f"lc_run--{UUID}")]),
        (f"pyd_ai_{uuid.UUID(UUID).hex}", [("callid", f"pyd_ai_{uuid.UUID(UUID).hex}")]),
        ("resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b", None),
        ("<Agent object at 0x7f3c5a1b2d30>", [("addr", "0x7f3c5a1b2d30")]),
        ("<Agent object at 0x10a3f4d50>", [("addr", "0x10a3f4d50")]),
        ("http://127.0.0.1:8123/v1 and localhost:99, [::1]:80", [("port", "8123"), ("port", "99"), ("port", "80")]),
        ("/tmp/pytest-of-ann/pytest-12/test_x0/a.txt", [("tmp", "/tmp/pytest-of-ann/pytest-12/test_x0")]),
        ("/scratch/me/pytest-of-ann/pytest-12/popen-gw1/test_x0", None),
        ("/private/var/folders/zz/x1_y/T/tmpab12cd_e/f", [("tmp", "/private/var/folders/zz/x1_y/T/tmpab12cd_e")]),
        ("cat /tmp/report.csv", [("tmp", "/tmp")]),
    ],
)
def test_what_is_new_in_every_run_is_cut_out(text: str, tokens: list[tuple[str, str]] | None) -> None:
    """Whole tokens, wherever they stand in a text."""
    shape, found = cut(text)
    if tokens is None:
        tokens = [(found[0][0], text)] if found else []
        assert tokens
    assert list(found) == tokens
    assert all(token not in shape for _, token in tokens)


@pytest.mark.parametrize(
    "text",
    [
        "item_AB12CD34", "item-2026Q4R1", "item_500EUR10x", "item-M8x40x2mm", "msg_2026Q4Report1", "gen_4o2mini7x",
        "/prod/tmpcustomer", "/v1/tmpdatabase",
        "call_center", "msg_type", "run-through", "call_recording2024", "msg_notification",
        "call_customerSupportCenter",
        "run-integrationtests2", "req_1", "call_1", "fc_barcelona1899", "#ff00ff", "0xff00ff", "deadbeef", "49.99",
        "api.example.com:8123", "mylocalhost:80", "127.0.0.10:80", "/home/tmp/x", "a/tmp", "/tmpfoo", "2026-11-22",
        "2026-11-22T07:00:00Z", "x" + UUID, UUID + "0", "recall_9pRXa71bQkLmZ2vN0TtYcWq3", "order 12345678",
    ],
)  # fmt: skip
def test_what_a_person_wrote_is_kept(text: str) -> None:
    """Words, numbers, dates, colours and parts of longer words are compared."""
    assert cut(text) == (text, ())


def test_a_time_is_overlooked_only_where_it_is_asked_for() -> None:
    """And need not be one to one: two readings of a clock may be equal by chance."""
    events = (tool(1, at="2026-11-22T07:00:00Z", due="2026-11-22T07:00:00Z"),)
    later = {"at": "2026-11-22T07:00:01.5Z", "due": "2026-11-22 07:00+01:00"}
    assert ask(Matcher(Recording(events=events)), **later) == "changed"
    assert ask(Matcher(Recording(events=events), volatile=KINDS), **later) == 1


def test_no_text_looks_like_one_that_lost_its_tokens() -> None:
    """The mark of what was cut out cannot be written."""
    forged = cut(UUID)[0]
    for recorded, live in ((UUID, forged), (f"{forged} {UUID}", f"{UUID} {forged}")):
        assert ask(Matcher(Recording(events=(tool(1, x=recorded),))), x=live) == "changed"


def test_an_id_of_an_answer_can_only_be_itself() -> None:
    """Whatever else the agent says instead was made up; also where the answer repeats an id of the request."""
    events = (tool(1, value={"order": UUID}), tool(2, order=UUID))
    matcher = Matcher(Recording(events=events))
    assert [ask(matcher), ask(matcher, order=NEW)] == [1, "identity"]
    matcher = Matcher(Recording(events=events))
    assert [ask(matcher), ask(matcher, order=UUID)] == [1, 2]

    echoed = (tool(1, value=f"booked {UUID}", order=UUID), tool(2, own=UUID, heard=UUID), tool(3, own=UUID))
    matcher = Matcher(Recording(events=echoed))
    assert [ask(matcher, order=NEW), ask(matcher, own=NEW, heard=UUID), ask(matcher, own=NEW)] == [1, 2, 3]


IGNORED: dict[str, Json] = {
    "messages": [{"role": "user", "content": "hi", "cache_control": {"type": "x"}}, {"role": "user", "content": "ho"}],
    "tools": [{"name": "search", "description": "Find."}],
    "metadata": {"trace": 1, "a.b": 2},
}


@pytest.mark.parametrize(
    ("ignore", "path"),
    [
        ("metadata.trace", ("metadata", "trace")),
        ('metadata["a.b"]', ("metadata", "a.b")),
        ("messages[].cache_control", ("messages", 0, "cache_control")),
        ("messages[0].content", ("messages", 0, "content")),
        ("messages[]", ("messages", 1)),
        ("tools.search.description", ("tools", 0, "description")),
        ("tools[0]", ("tools", 0, "name")),
        ("metadata", ("metadata", "trace")),
    ],
)
def test_an_ignored_path_is_not_compared(ignore: str, path: tuple[Any, ...]) -> None:
    """Changed only there, a request is the recorded one; without the rule it is another, and says that path."""
    request = json.loads(json.dumps(IGNORED))
    place = request
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = "changed"
    recorded = RecordedEvent(
        n=1, kind="model", name="m", run="", start=1, end=2, request=IGNORED, key=key_of("model", "m", IGNORED)
    )
    call = ModelCall(
        name="m", messages=request["messages"], tools=request["tools"], params={"metadata": request["metadata"]}
    )
    assert isinstance(Matcher(Recording(events=(recorded,)), ignore=[ignore]).serve(call, ""), Served)
    answer = Matcher(Recording(events=(recorded,))).serve(call, "")
    assert isinstance(answer, Divergence)
    # What is shown can be ignored: the path is of the same syntax.
    shown = [one.path for one in answer.differences]
    assert isinstance(Matcher(Recording(events=(recorded,)), ignore=shown).serve(call, ""), Served), shown


@pytest.mark.parametrize("path", ["", "a..b", ".a", "[0]", "a[x]", "a[-1]", "a.", "a b", "a[0", 'a["b]', "a]b"])
def test_a_path_that_cannot_be_read_is_an_error(path: str) -> None:
    """It says which one, and how it is written."""
    with pytest.raises(UsageError, match=r"cannot be read.*metadata\.trace"):
        Matcher(Recording(), ignore=[path])


def test_unknown_kinds_and_orders_are_errors() -> None:
    """They name what there is."""
    with pytest.raises(UsageError, match="'uid' is no kind of volatile token; there are uuid, callid"):
        Matcher(Recording(), volatile=["uid"])
    with pytest.raises(UsageError, match="'loose' is no order; there are causal, strict, any"):
        Matcher(Recording(), order="loose")  # type: ignore[arg-type]


def test_what_is_in_an_edited_file_is_what_must_match(tmp_path: Path) -> None:
    """The stored key is an index: it neither lets the old request pass nor keeps the new one out."""
    path = tmp_path / "r.oao.json"
    Recording(events=(tool(1, x="old"), tool(2, x="same"))).save(path)
    path.write_text(path.read_text(encoding="utf-8").replace('"old"', '"new"'), encoding="utf-8")
    assert Recording.load(path).events[0].key == key_of("tool", "a", {"x": "old"})

    assert ask(Matcher(Recording.load(path)), x="old") == "changed"
    matcher = Matcher(Recording.load(path))
    assert [ask(matcher, x="new"), ask(matcher, x="same")] == [1, 2]


def test_runs_are_played_independently_and_in_another_order() -> None:
    """Two runs of one agent that start the other way round, each with calls of its own, interleaved."""
    events = (tool(1, "main", x=0), tool(2, "agent", x=1), tool(3, "agent", x=2), tool(4, "agent#2", x=3))
    matcher = Matcher(Recording(events=events))
    assert [ask(matcher, "agent", x=3), ask(matcher, "agent#2", x=1), ask(matcher, "main", x=0)] == [4, 2, 1]
    assert ask(matcher, "agent#2", x=2) == 3
    assert matcher.unplayed_text() is None

    matcher = Matcher(Recording(events=events))
    assert [ask(matcher, "agent", x=1), ask(matcher, "agent#2", x=2)] == [2, "changed"]
    assert ask(Matcher(Recording(events=events), order="strict"), "agent", x=1) == "order"


def test_a_recording_of_one_run_is_played_by_any() -> None:
    """An exported run, or one of an agent that has another name now."""
    matcher = Matcher(Recording(events=(tool(1, "main", x=0), tool(2, "main", x=1))))
    assert [ask(matcher, "planner", x=0), ask(matcher, "helper", x=1)] == [1, 2]


def test_ids_are_the_same_in_all_runs_of_a_test() -> None:
    """What one run calls a recorded id, another one cannot call otherwise."""
    events = (tool(1, "main", x=UUID), tool(2, "agent", x=UUID))
    matcher = Matcher(Recording(events=events))
    assert [ask(matcher, "main", x=NEW), ask(matcher, "agent", x=UUID)] == [1, "identity"]


CALLS: Json = [{"id": f"call_{i}", "name": "look", "args": {"id": f"{i}"}} for i in (1, 2)]
TALK: dict[str, Json] = {
    "messages": [
        {"role": "user", "content": "Refund 123 at localhost:8123."},
        {"role": "assistant", "content": "", "calls": CALLS},
        {"role": "tool", "content": "paid", "call_id": "call_1"},
        {"role": "tool", "content": "open", "call_id": "call_2"},
    ],
    "tools": [{"name": "look"}],
    "temperature": 0,
}
TALKED = Recording(
    events=(
        RecordedEvent(n=1, kind="model", name="m", run="", start=1, end=2, request=TALK, key=""),
        tool(2, id="123", amount=5, urgent=True),
    )
)


def test_mutants_alter_every_part_and_are_the_same_tomorrow() -> None:
    """Some of each sort before more of one; never the request itself."""
    found = mutants(TALK, "model", 100, 7)
    sorts = {description.partition(" in ")[0].partition("[")[0] for description, _ in found}
    assert sorts == {
        "changed word", "dropped messages", "swapped messages", "swapped the ids of messages", "changed number",
        "extra tool", "changed parameter temperature", "extra parameter", "changed argument",
    }  # fmt: skip
    assert found == mutants(TALK, "model", 100, 7)
    assert len(mutants(TALK, "model", 5, 7)) == 5
    assert all(altered != TALK for _, altered in found)


def test_a_recording_catches_what_nothing_hides() -> None:
    """Exact comparison catches all; each rule and kind is blamed for what it hides."""
    exact = strength(TALKED, volatile=(), limit=100)
    assert (exact.caught, exact.missed) == (exact.total, ())
    assert exact.total > 20

    default = strength(TALKED, limit=100)
    assert {(one.step, one.description, one.blame) for one in default.missed} == {
        (1, "changed number in messages[0].content", "volatile port")
    }
    ignoring = strength(TALKED, volatile=(), ignore=["messages[].content", "urgent"], limit=100)
    assert {one.blame for one in ignoring.missed} == {"ignore messages[].content", "ignore urgent"}
    assert ignoring.caught + len(ignoring.missed) == ignoring.total == exact.total


def test_a_lone_request_is_compared_without_a_replay() -> None:
    """Tokens may differ one to one, and nothing else."""
    event = tool(1, x=UUID, y=UUID)
    assert would_match(event, {"x": NEW, "y": NEW})
    assert not would_match(event, {"x": NEW, "y": UUID})
    assert not would_match(event, {"x": NEW, "y": NEW}, Shaper(volatile=()))
    assert not would_match(replace(event, name="b"), {"x": 1})
