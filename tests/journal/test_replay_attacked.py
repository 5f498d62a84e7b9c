"""Attacks on the promise that a replay passes only where nothing that matters has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oao_harness import Orchestrator, RecordingError, tool
from oao_harness.journal.places import recording_place
from oao_harness.journal.recording import Recording
from oao_harness.journal.tokens import cut


@tool
def book(city: str) -> str:
    return f"booked {city}"


def agent(task: str) -> str:
    book(task)
    return book("Rome")


def record(path: Path, test: str = "t.py::test") -> Path:
    orchestrator = Orchestrator()
    report = orchestrator.run(agent, "Lyon")
    Recording.from_records(orchestrator.store.read(report.execution_id), test=test).save(path)
    return path


def test_a_slash_in_a_parameter_does_not_make_two_tests_one(tmp_path: Path) -> None:
    """Neither do they share a file, nor is the recording of one played to the other."""
    one, other = (f"tests/t.py::test_get[http:{sign}/h/x]" for sign in "/:")

    assert recording_place(Path("t.py"), one) != recording_place(Path("t.py"), other)
    path = record(tmp_path / "r.oao.json", test=one)
    with pytest.raises(RecordingError, match="is of test"):
        Recording.load(path, test=other)
    assert Recording.load(path, test=one.removeprefix("tests/")).test == one


def same_number(document: Any) -> None:
    document["events"][1]["n"] = 1


def own_parent(document: Any) -> None:
    document["events"][1]["parent"] = 2


def circle(document: Any) -> None:
    document["events"][0]["parent"], document["events"][1]["parent"] = 2, 1


def lost_parent(document: Any) -> None:
    document["events"][1]["parent"] = 99


def backwards(document: Any) -> None:
    document["events"][1]["span"] = [9, 3]


def no_request(document: Any) -> None:
    document["events"][1]["req"] = None


def no_result(document: Any) -> None:
    del document["events"][1]["res"]


def no_header(document: Any) -> None:
    document["recorded"] = "yesterday"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (same_number, "event 2: its number 1 is that of another event"),
        (own_parent, "event 2: its parent 2 is no event before it"),
        (circle, "event 1: its parent 2 is no event before it"),
        (lost_parent, "event 2: its parent 99 is no event before it"),
        (backwards, r"event 2: its span \[9, 3\] ends before it begins"),
        (no_request, "event 2: its req is no object"),
        (no_result, "event 2: it has neither res nor error"),
        (no_header, "the header: recorded is no object"),
    ],
)
def test_a_recording_that_contradicts_itself_is_refused(
    tmp_path: Path, edit: Callable[[Any], None], words: str
) -> None:
    """A bad merge or a slip of the hand must not hide a call, or be told as an error of the agent."""
    path = record(tmp_path / "r.oao.json")
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))

    with pytest.raises(RecordingError, match=f"is damaged in {words}"):
        Recording.load(path)


def test_a_bottomless_file_is_a_damaged_recording(tmp_path: Path) -> None:
    """Not an error inside of pytest."""
    path = tmp_path / "r.oao.json"
    path.write_text("[" * 100_000)

    with pytest.raises(RecordingError, match="not JSON"):
        Recording.load(path)


@pytest.mark.parametrize(
    "text",
    ["https://api.example.com/v1/tmpdatabase", "https://tmp/x", "//api.example.com/tmpcustomer", "s3://tmp/report"],
)
def test_a_host_is_never_part_of_a_temporary_path(text: str) -> None:
    """A request to another host is another request, whatever the last part of its path looks like."""
    assert cut(text) == (text, ())
