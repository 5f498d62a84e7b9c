"""Recorded runs of other tools become recordings: on real files counted by hand, on damaged ones with a clear error."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oao_harness.errors import RecordingError
from oao_harness.importing.forms import UnknownFormError, import_runs
from oao_harness.importing.runs import ImportedRun
from oao_harness.journal.recording import Recording

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the recorded runs (shared/data) are not here")

LOG: dict[str, Any] = {
    "suite_name": "banking", "pipeline_name": "p", "user_task_id": "user_task_1", "injection_task_id": None,
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "content": "Pay Bob"}]},
        {
            "role": "assistant", "content": None,
            "tool_calls": [
                {"function": "find", "args": {"name": "Bob"}, "id": "c1"}, {"function": "pay", "args": {}, "id": None},
                {"function": "wait", "args": {}},
            ],
        },
        {
            "role": "tool", "content": "Bob!", "error": None, "tool_call_id": "c1",
            "tool_call": {"function": "find", "args": {"name": "Bob"}, "id": "c1"},
        },
        {"role": "tool", "content": "", "error": "ValueError: no", "tool_call": {"function": "pay", "args": {}}},
        {"role": "assistant", "content": "Sorry", "tool_calls": []},
    ],
    "error": None,
}  # fmt: skip
TAU: list[dict[str, Any]] = [
    {
        "task_id": 3, "trial": 0, "info": {},
        "traj": [
            {"role": "system", "content": "Policy"},
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant", "content": None,
                "tool_calls": [{"id": "c1", "function": {"name": "find", "arguments": "{\"q\": 1}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "name": "find", "content": "found"},
            {"role": "assistant", "content": "Yes", "function_call": None, "tool_calls": None},
        ],
    }
]  # fmt: skip


def imported(tmp_path: Path, document: object, *, lines: bool = False) -> list[ImportedRun]:
    path = tmp_path / "run.json"
    items = document if lines and isinstance(document, list) else [document]
    path.write_text("\n".join(json.dumps(item) for item in items), "utf-8")
    return import_runs(path)


def calls(run: ImportedRun) -> list[tuple[str, str, object]]:
    return [(event.kind, event.name, event.value) for event in run.recording.events]


def test_a_log_of_agentdojo_becomes_calls_in_order(tmp_path: Path) -> None:
    """Answers are model calls with all that was said before; errors, missing results and the task are taken over."""
    [run] = imported(tmp_path, LOG)
    events = run.recording.events

    assert [(e.kind, e.name, e.batch, e.finished) for e in events] == [
        ("model", "p", None, True), ("tool", "find", 1, True), ("tool", "pay", 1, True), ("tool", "wait", 1, False),
        ("model", "p", None, True),
    ]  # fmt: skip
    assert events[1].value == "Bob!"
    assert events[1].request == {"name": "Bob"}
    assert events[2].error is not None
    assert events[2].error.message == "ValueError: no"
    assert [m["role"] for m in events[0].request["messages"]] == ["system", "user"]  # type: ignore[index,union-attr,call-overload]
    assert len(events[4].request["messages"]) == 5  # type: ignore[arg-type]
    assert run.recording.header["task"] == "Pay Bob"
    assert run.recording.header["agent"] == "banking"
    assert "1 tool calls that the model asked for have no recorded result" in run.notes
    assert any("cannot be replayed" in note for note in run.notes)


def test_forms_of_tau_bench_are_read(tmp_path: Path) -> None:
    """OpenAI's calls, its older function calls, Anthropic's blocks; a run that never began is kept, and says why."""
    rows = copy.deepcopy(TAU)
    rows.append({"task_id": 4, "traj": [], "info": {"error": "no key"}})
    rows.append({
        "task_id": 3, "trial": 0,
        "traj": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "x", "function_call": {"name": "old", "arguments": ""}},
            {"role": "function", "name": "old", "content": "1"},
            {"role": "assistant", "content": [
                {"type": "text", "text": "Looking"}, {"type": "tool_use", "id": "t1", "name": "new", "input": {"a": 2}}
            ]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "2"}]},
        ],
    })  # fmt: skip
    first, empty, other = imported(tmp_path, rows)

    assert [(kind, name) for kind, name, _ in calls(first)] == [
        ("model", "unknown"), ("tool", "find"), ("model", "unknown"),
    ]  # fmt: skip
    assert (first.name, empty.name, other.name) == ("task-3-trial-0", "task-4", "task-3-trial-0#2")
    assert (calls(empty), empty.notes[-1]) == ([], "the run ended with an error: no key")
    assert [(name, value) for kind, name, value in calls(other) if kind == "tool"] == [("old", "1"), ("new", "2")]
    assert other.recording.events[3].request == {"a": 2}


@needs_data
def test_every_call_of_the_real_runs_is_there() -> None:
    """Tool calls by name, tools' errors, answers and tokens, counted in the files with nothing of ours."""
    wanted: Counter[tuple[str, str]] = Counter()
    errors = tokens = 0
    for file in sorted((DATA / "agentdojo" / "runs").glob("*.json")):
        for message in json.loads(file.read_text("utf-8"))["messages"]:
            wanted.update(("tool", call["function"]) for call in message.get("tool_calls") or ())
            wanted["model", ""] += message["role"] == "assistant"
            errors += message["role"] == "tool" and bool(message["error"])
    for row in json.loads((DATA / "tau-bench" / "gpt-4o-airline.trials01.json").read_text("utf-8")):
        for message in row["traj"]:
            wanted.update(("tool", call["function"]["name"]) for call in message.get("tool_calls") or ())
            wanted["model", ""] += message["role"] == "assistant"
    for file in sorted((DATA / "tau2-bench").glob("*.json")):
        for simulation in json.loads(file.read_text("utf-8"))["simulations"]:
            for message in simulation["messages"]:
                wanted.update(("tool", call["name"]) for call in message.get("tool_calls") or ())
                usage = message.get("usage")
                wanted["model", ""] += message["role"] != "tool" and usage is not None
                tokens += usage["prompt_tokens"] + usage["completion_tokens"] if usage else 0
                errors += message["role"] == "tool" and bool(message["error"])
    files = [
        f for folder in ("agentdojo/runs", "tau-bench", "tau2-bench") for f in sorted((DATA / folder).glob("*.json"))
    ]
    runs = [run for file in files for run in import_runs(file)]
    events = [event for run in runs for event in run.recording.events]

    assert len(runs) == 256 + 100 + 55
    found = Counter((event.kind, event.name if event.kind == "tool" else "") for event in events)
    assert found == +wanted
    assert sum(event.error is not None for event in events) == errors > 0
    assert sum(event.usage.total_tokens for event in events if event.usage is not None) == tokens > 0


@needs_data
def test_an_import_can_be_written_and_read_again(tmp_path: Path) -> None:
    """What the file holds is what was imported."""
    for run in import_runs(DATA / "tau2-bench" / "gpt-4.1_telecom.json")[:3]:
        run.recording.save(tmp_path / "x.oao.json")
        assert Recording.load(tmp_path / "x.oao.json") == run.recording


@needs_data
@pytest.mark.parametrize(
    "name",
    ["agentdojo/index.json", "MANIFEST.json", "inspect/2025-05-12T20-28-26-04-00_security-guide.json",
     "swe-agent/BabyEncryption.traj", "asb/agent_task.jsonl"],
)  # fmt: skip
def test_other_files_are_of_no_known_form(name: str) -> None:
    """Said with the file and the forms that are known."""
    with pytest.raises(UnknownFormError, match="no known form") as caught:
        import_runs(DATA / name)
    assert name.rpartition("/")[2] in str(caught.value)
    assert "agentdojo, tau2-bench, tau-bench, otlp" in str(caught.value)


def without(document: Any, *path: Any) -> Any:
    found = copy.deepcopy(document)
    node = found
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return found


def put(document: Any, value: Any, *path: Any) -> Any:
    found = copy.deepcopy(document)
    node = found
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return found


DAMAGED: list[tuple[Any, str]] = [
    (put(LOG, None, "messages"), "messages is missing"),
    (put(LOG, {}, "messages"), "messages is {}, not a list"),
    (put(LOG, "x", "messages", 2), r"messages\[2\] is 'x', not an object"),
    (put(LOG, "robot", "messages", 0, "role"), r"messages\[0\].role is 'robot'"),
    (put(LOG, ["x"], "messages", 0, "role"), r"messages\[0\].role is \['x'\], not a text"),
    (put(LOG, {"a": 1}, "messages", 2, "tool_calls"), r"messages\[2\].tool_calls is"),
    (without(LOG, "messages", 2, "tool_calls", 0, "args"), r"messages\[2\].tool_calls\[0\].args is missing"),
    (put(LOG, "", "messages", 2, "tool_calls", 1, "function"), r"tool_calls\[1\].function is empty"),
    (without(LOG, "messages", 3, "tool_call"), r"messages\[3\].tool_call is missing"),
    (without(TAU, 0, "traj"), "no known form"),
    ([*TAU, {"task_id": 5}], r"\[1\] \(task-5\).traj is missing"),
    (put(TAU, '{"q"', 0, "traj", 2, "tool_calls", 0, "function", "arguments"), "arguments is no JSON"),
    (put(TAU, "[1]", 0, "traj", 2, "tool_calls", 0, "function", "arguments"), r"arguments is \[1\], not an object"),
    (put(TAU, "other", 0, "traj", 3, "tool_call_id"), r"traj\[3\] is the result of a tool call that no answer"),
    (put(TAU, None, 0, "traj", 2, "tool_calls", 0, "function"), r"tool_calls\[0\].function is missing"),
    ({"simulations": []}, "it holds no run"),
    ({"simulations": [{"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}]}, "name is missing"),
    ({"simulations": [{"messages": [{"role": "tool", "id": "c", "content": ""}]}]}, "no answer before it"),
    (
        {"simulations": [{"messages": [{"role": "assistant", "content": "", "usage": {"prompt_tokens": -1}}]}]},
        "tokens are >= 0",
    ),
    ([], "no known form"),
    ({}, "no known form"),
    (5, "no known form"),
    ({"oao": 1, "events": []}, "a recording of oao needs no import"),
]


@pytest.mark.parametrize(("document", "said"), DAMAGED, ids=lambda value: value if isinstance(value, str) else "")
def test_damage_is_said_with_file_and_place(tmp_path: Path, document: Any, said: str) -> None:
    """Never a traceback of ours, never a run with fewer calls."""
    with pytest.raises(RecordingError, match=said) as caught:
        imported(tmp_path, document)
    assert str(caught.value).startswith(f"cannot import {str(tmp_path / 'run.json')!r}: ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"\xff\xfe{\x00", "no UTF-8"),
        (b"\x1f\x8b\x08", "unpack it first"),
        (b'{"messages": [', "truncated or no JSON: .* line 1 column 15"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"messages": [], "messages": []}', "the key 'messages' twice"),
        (b"[" * 100_000, "nested too deep|truncated"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON that can be read"),
        (b'{"resourceSpans": []}\n{"resourceSpans": [', "line 2 is truncated"),
        (b"interactions: []\n", "no JSON"),
    ],
    ids=range(11),
)
def test_what_is_no_json_is_said_with_its_place(tmp_path: Path, content: bytes, said: str) -> None:
    """Empty, another encoding, compressed, cut off, not JSON at all."""
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=said):
        import_runs(path)


def test_missing_files_and_folders_are_said(tmp_path: Path) -> None:
    """With the name."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(RecordingError, match="it cannot be read"):
            import_runs(path)


def test_a_run_of_too_many_messages_is_refused(tmp_path: Path) -> None:
    """Each request holds all before it: that grows with the square."""
    said = {"role": "user", "content": "x"}
    log = {**LOG, "messages": [*[said] * 5001, {"role": "assistant", "content": "y"}]}
    with pytest.raises(RecordingError, match="a request has 5001 messages; at most 5000 are read"):
        imported(tmp_path, log)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*path, key))


@pytest.mark.parametrize("document", [LOG, TAU], ids=["agentdojo", "tau-bench"])
def test_whatever_is_wrong_is_an_error_or_nothing_that_matters(tmp_path: Path, document: Any) -> None:
    """Each value in turn replaced or left out: an error of ours, or as many calls as the file asks for."""
    values: list[Any] = [None, 0, True, "", "\ud800", [], {}, [1], [{}], {"role": "tool"}, "{", 10**30]
    chance = random.Random(5)
    outcomes: Counter[str] = Counter()
    for path in _paths(document):
        for value in chance.sample(values, 4):
            damaged = put(document, value, *path)
            text = json.dumps(damaged)
            try:
                runs = imported(tmp_path, damaged)
            except RecordingError:
                outcomes["error"] += 1
                continue
            asked = text.count('"function": "') + text.count('"function": {"name"')
            results = text.count('"tool_call": {')
            found = sum(event.kind == "tool" for run in runs for event in run.recording.events)
            assert found >= asked - results, (path, value)
            outcomes["read"] += 1
    assert min(outcomes.values()) > 20
