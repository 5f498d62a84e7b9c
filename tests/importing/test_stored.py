"""A recording becomes a run again, and goes on: what it holds is served, the rest is made."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import oao_harness as oao
from oao_harness import Edit, Orchestrator, RecordingError
from oao_harness.importing.stored import store_recording
from oao_harness.journal.chain import verify
from oao_harness.journal.nesting import tape_of
from oao_harness.journal.recording import Recording
from oao_hookspecs import Store
from pytest_oao.testing import ScriptedModel, ToolCall, ToolCallReply

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


@oao.tool
def look(what: str) -> str:
    RAN.append(what)
    if what == "broken":
        raise ValueError("no such thing")
    return f"saw {what}"


@oao.tool
async def look_async(what: str) -> str:
    RAN.append(what)
    await asyncio.sleep(0.01)
    return f"saw {what}"


def nested(task: str) -> str:
    inner = Orchestrator()

    @oao.tool
    def delegate(what: str) -> str:
        return str(inner.run(lambda task: look(task) + look("b"), what, agent_name="inner").final_output)

    direct = inner.run(lambda task: look("direct"), "t", agent_name="direct").final_output
    return f"{look(task)} {delegate('c')} {direct}"


def failing(task: str) -> str:
    try:
        return look("broken")
    except ValueError as error:
        return f"{error}, {look('instead')}"


async def side_by_side(task: str) -> str:
    return " ".join(await asyncio.gather(*(look_async(f"{task} {n}") for n in range(5))))


def batch(task: str) -> str:
    calls = (ToolCall(name="look", arguments={"what": "x"}), ToolCall(name="look", arguments={"what": "y"}))
    model = ScriptedModel([ToolCallReply(calls=calls), "done"])
    answer = model([{"role": "user", "content": task}])
    seen = [look(**call["arguments"]) for call in answer["tool_calls"]]
    return f"{seen} {model([{'role': 'user', 'content': str(seen)}])['content']}"


def recorded(agent: object, folder: Path) -> tuple[Recording, oao.ExecutionReport]:
    orchestrator = Orchestrator()
    report = orchestrator.run(agent, "t")
    assert report.status == "SUCCESS", report.error
    tape = tape_of(report.execution_id, lambda one: list(orchestrator.store.read(one)))
    path = folder / "x.oao.json"
    Recording.from_records(tape).save(path)
    RAN.clear()
    return Recording.load(path), report


@pytest.mark.parametrize("agent", [nested, failing, side_by_side, batch])
def test_what_was_recorded_is_served(agent: object, store: Store, tmp_path: Path) -> None:
    """Calls that failed, that overlapped, of nested runs and of batches; the report is that of the recorded run."""
    recording, first = recorded(agent, tmp_path)
    id_ = store_recording(recording, store, source="x.oao.json", task="t")
    assert [row.status for row in store.runs() if row.execution_id == id_] == ["SUSPENDED"]

    report = Orchestrator(store=store).resume(id_, agent)

    assert (report.status, report.final_output, RAN) == ("SUCCESS", first.final_output, []), report.error
    assert (report.tool_usage, report.total_tokens) == (first.tool_usage, first.total_tokens)
    assert all(verify(store.read(row.execution_id)).damage is None for row in store.runs())


def test_it_goes_on_where_the_recording_ends(store: Store, tmp_path: Path) -> None:
    """And forks in the middle of it."""
    recording, _ = recorded(nested, tmp_path)
    id_ = store_recording(recording, store, source="x", task="t")
    orchestrator = Orchestrator(store=store)

    report = orchestrator.resume(id_, lambda task: nested(task) + look("more"))
    assert (report.status, RAN) == ("SUCCESS", ["more"]), report.error
    forked = orchestrator.fork(id_, nested, 1, edit=Edit("nothing"))
    assert (forked.status, RAN) == ("SUCCESS", ["more", "c", "b"]), forked.error
    assert str(forked.final_output).startswith("nothing saw csaw b")


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        (Recording(header={"layer": "wire"}), "the requests of a provider's client"),
        (Recording(), "holds no call"),
    ],
)
def test_what_is_no_run_is_refused(recording: Recording, message: str, store: Store) -> None:
    """And nothing is written."""
    with pytest.raises(RecordingError, match=message):
        store_recording(recording, store, source="x")
    assert not store.runs()
