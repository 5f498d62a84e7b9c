"""Recordings as files: what they hold, how they read, and every way one can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oao_harness import Orchestrator, RecordingError, StrictPolicy, model, tool
from oao_harness.journal.recording import Recording

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


def test_a_secret_of_the_environment_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable, never its value."""
    monkeypatch.setenv("SHOP_API_KEY", "sk-12345-very-secret")

    @tool
    def login() -> str:
        return "token sk-12345-very-secret"

    orchestrator = Orchestrator()
    report = orchestrator.run(lambda task: login(), "x")
    recording = Recording.from_records(orchestrator.store.read(report.execution_id))

    with pytest.raises(RecordingError, match=r"\$SHOP_API_KEY") as caught:
        recording.save(tmp_path / "x.oao.json")
    assert "sk-12345" not in str(caught.value)
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


@pytest.mark.parametrize(
    "secret", ["-----BEGIN KEY-----\nabcdefghijk\n-----END KEY-----", "pässwört-geheim", 'a"b\\cdefgh']
)
def test_a_secret_that_json_writes_differently_is_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    """A private key has several lines, and a recording writes each on its own."""
    monkeypatch.setenv("SHOP_PRIVATE_KEY", secret)

    @tool
    def login() -> str:
        return f"it is {secret}."

    orchestrator = Orchestrator()
    report = orchestrator.run(lambda task: login(), "x")
    recording = Recording.from_records(orchestrator.store.read(report.execution_id))

    with pytest.raises(RecordingError, match=r"\$SHOP_PRIVATE_KEY"):
        recording.save(tmp_path / "x.oao.json")
