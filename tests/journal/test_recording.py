"""Recordings as files: what they hold, how they read, and every way one can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from oao_harness import Orchestrator, RecordingError, StrictPolicy, model, tool
from oao_harness.journal.recording import Recording
from oao_harness.journal.records import key_of
from oao_hookspecs import Json

PROMPT = "You are a careful travel agent.\nNever book without approval."


@model(name="gpt-x")
def ask(messages: list[dict[str, str]], tools: object = None) -> dict[str, object]:
    return {"message": {"role": "assistant", "content": "line\nline"}, "usage": {"input_tokens": 8, "output_tokens": 2}}


@tool
def book(city: str) -> object:
    if city == "Atlantis":
        raise LookupError("no such city")
    return {"city": city, "$lines": ["kept"], "pair": (1, 2)}


def agent(task: str) -> object:
    history = [{"role": "system", "content": PROMPT}, {"role": "user", "content": task}]
    for _ in range(3):
        history.append(ask(history, tools=[{"name": "book", "schema": {}}])["message"])  # type: ignore[arg-type]
    try:
        book("Atlantis")
    except LookupError:
        pass
    return book("Rome")


def record() -> Recording:
    orchestrator = Orchestrator(policy=StrictPolicy())
    report = orchestrator.run(agent, "Rome, please")
    assert report.status == "SUCCESS", report.error
    return Recording.from_records(orchestrator.store.read(report.execution_id), test="t.py::test", policy="strict")


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every event, equal."""
    recording = record()
    recording.save(tmp_path / "deep" / "x.oao.json")

    loaded = Recording.load(tmp_path / "deep" / "x.oao.json", test="t.py::test")

    assert loaded == recording
    assert not list((tmp_path / "deep").glob(".*"))


def test_messages_and_tools_are_written_once(tmp_path: Path) -> None:
    """A conversation that is sent again and again does not grow the file; many lines are a list of lines."""
    path = tmp_path / "x.oao.json"
    record().save(path)
    text = path.read_text()
    document = json.loads(text)

    assert text.count("careful travel agent") == 1
    assert document["messages"]["m1"]["content"] == {"$lines": PROMPT.split("\n")}
    assert document["events"][2]["req"]["messages"] == ["m1", "m2", "m3", "m3"]
    assert document["events"][0]["req"]["tools"] == ["t1"]
    assert document["events"][0]["res"]["$message"] == "m3"
    assert document["events"][3]["error"]["type"] == "builtins:LookupError"
    assert document["totals"] == {"steps": 5, "model_calls": 3, "tool_calls": 2, "tokens": 30}


def test_a_change_of_one_word_is_a_small_diff(tmp_path: Path) -> None:
    """The file is made to be reviewed."""
    record().save(tmp_path / "a.json")
    before = (tmp_path / "a.json").read_text().splitlines()
    after = [line.replace("approval", "a permit") for line in before]

    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def damaged(text: str, kind: str) -> str:
    document: Any = json.loads(text)
    if kind == "truncated":
        return text[: len(text) // 2]
    if kind == "empty":
        return ""
    if kind == "a list":
        return "[]"
    if kind == "newer":
        document["oao"] = 2
    elif kind == "no format":
        del document["oao"]
    elif kind == "other test":
        document["test"] = "t.py::another"
    elif kind == "lost message":
        del document["messages"]["m2"]
    elif kind == "lost span":
        del document["events"][1]["span"]
    elif kind == "events missing":
        del document["events"]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "is truncated or not JSON"),
        ("empty", "is truncated or not JSON"),
        ("a list", "is not a recording of oao"),
        ("no format", "is not a recording of oao"),
        ("newer", "has format 2, this oao reads 1; upgrade oao-harness"),
        ("other test", "is of test 't.py::another', not of 't.py::test'"),
        ("lost message", r"is damaged in event 1: KeyError 'm2'"),
        ("lost span", "is damaged in event 2: KeyError 'span'"),
        ("events missing", "is damaged in the header: KeyError 'events'"),
    ],
)
def test_a_wrong_file_is_a_clear_error(tmp_path: Path, kind: str, words: str) -> None:
    """What is wrong, where, and what to do; the file is not touched."""
    path = tmp_path / "x.oao.json"
    record().save(path)
    path.write_text(damaged(path.read_text(), kind))
    before = path.read_bytes()

    with pytest.raises(RecordingError, match=words):
        Recording.load(path, test="t.py::test")
    assert path.read_bytes() == before


def test_a_missing_file_says_how_to_record_it(tmp_path: Path) -> None:
    """The way out is in the message."""
    with pytest.raises(RecordingError, match="--oao-record=once"):
        Recording.load(tmp_path / "none.oao.json")


def test_a_result_that_cannot_be_read_back_is_refused_when_saving(tmp_path: Path) -> None:
    """Better no recording than one that cannot be played."""

    @tool
    def connect() -> object:
        return object()

    orchestrator = Orchestrator()
    report = orchestrator.run(lambda task: repr(connect()), "x")
    recording = Recording.from_records(orchestrator.store.read(report.execution_id))

    with pytest.raises(RecordingError, match="step 1 tool connect returned a builtins:object"):
        recording.save(tmp_path / "x.oao.json")
    assert list(tmp_path.iterdir()) == []


def test_half_a_surrogate_pair_survives(tmp_path: Path) -> None:
    """A model's answer may be cut in the middle of an emoji."""

    @tool
    def cut() -> str:
        return "\ud83d broken"

    orchestrator = Orchestrator()
    report = orchestrator.run(lambda task: len(cut()), "x")
    Recording.from_records(orchestrator.store.read(report.execution_id)).save(tmp_path / "x.oao.json")

    assert Recording.load(tmp_path / "x.oao.json").events[0].value == "\ud83d broken"


def test_fields_of_a_newer_oao_survive(tmp_path: Path) -> None:
    """What this version does not know is kept when the file is written again."""
    path = tmp_path / "x.oao.json"
    record().save(path)
    document: Any = json.loads(path.read_text())
    document["seed"] = 7
    document["recorded"]["host"] = "linux"
    document["events"][1]["lane"] = "call#1"
    document["events"][1]["finished"] = False
    path.write_text(json.dumps(document))

    Recording.load(path).save(tmp_path / "y.oao.json")

    again: Any = json.loads((tmp_path / "y.oao.json").read_text())
    del document["events"][1]["res"]
    assert again == document


def test_each_request_of_a_growing_conversation_keeps_its_own_messages(tmp_path: Path) -> None:
    """A conversation that grows, is cut, and grows in another run, with numbers that are equal and not the same."""
    recording = record()
    talk: list[Json] = [{"role": "user", "content": str(i), "n": i % 2} for i in range(6)]
    again: list[Json] = [{**cast("dict[str, Json]", one), "n": bool(cast("Any", one)["n"])} for one in talk]
    first = recording.events[0]
    lists = [talk[:1], talk[:4], talk[:5], again[:5], talk[2:], talk, again[:6], [], talk[:2]]
    requests: list[dict[str, Json]] = [{"messages": one, "tools": [{"name": "t"}], "top_p": 1.0} for one in lists]
    keys = [key_of("model", "gpt-x", request) for request in requests]
    events = tuple(replace(first, n=i, request=one, key=keys[i]) for i, one in enumerate(requests))
    replace(recording, events=events).save(tmp_path / "x.oao.json")

    loaded = Recording.load(tmp_path / "x.oao.json").events

    assert [event.key for event in loaded] == keys
    assert [json.dumps(event.request) for event in loaded] == [json.dumps(request) for request in requests]


def test_messages_in_a_row_are_one_reference(tmp_path: Path) -> None:
    """A file grows with the conversation, not with its square; a lost message is found even so."""
    recording = record()
    talk: list[Json] = [{"role": "user", "content": str(i)} for i in range(6)]
    event = replace(recording.events[0], request={"messages": [*talk, talk[0], talk[1]]})
    path = tmp_path / "x.oao.json"
    replace(recording, events=(event,)).save(path)
    document: Any = json.loads(path.read_text())

    assert document["events"][0]["req"]["messages"] == ["m1..m6", "m1", "m2"]
    assert Recording.load(path).events[0].request == event.request
    del document["messages"]["m4"]
    path.write_text(json.dumps(document))
    with pytest.raises(RecordingError, match="damaged in event 1: KeyError 'm4'"):
        Recording.load(path)
