"""A thousand replays of a program whose threads and tasks race write the same bytes."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import oao_harness as oao
from oao_harness import MemoryStore, Orchestrator
from oao_harness.journal.playback import Playback, replay_id
from oao_harness.journal.recording import Recording
from oao_harness.journal.writer import Writer
from oao_harness.runtime import context
from oao_harness.runtime.clock import SystemClock
from oao_hookspecs import Record

_RACE = random.SystemRandom()


@oao.model(name="m")
def ask(prompt: str) -> dict[str, Any]:
    return {"content": prompt, "usage": {"input_tokens": 3, "output_tokens": 2}}


@oao.tool
def work(k: str) -> str:
    time.sleep(0.03 + _RACE.random() * 0.004)
    return k


@oao.tool
async def awork(k: str) -> str:
    await asyncio.sleep(_RACE.random() * 0.004)
    return k


def in_threads(task: str) -> str:
    """Six sync tools in threads; how long the agent itself dawdles is chance."""
    ask("start")

    def one(k: str) -> str:
        time.sleep(_RACE.random() * 0.0005)
        return work(k)

    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(contextvars.copy_context().run, one, k) for k in "abcdef"]
    ask("end")
    return "".join(one.result() for one in found)


async def in_tasks(task: str) -> str:
    """Six async tools in tasks that wait for each other by chance."""
    ask("start")

    async def one(k: str) -> str:
        for _ in range(_RACE.randrange(5)):
            await asyncio.sleep(0)
        return await awork(k)

    found = await asyncio.gather(*(one(k) for k in "abcdef"))
    ask("end")
    return "".join(found)


def nested_in_threads(task: str) -> str:
    """Three runs nested in one, in threads, each with threads of its own."""
    inner = Orchestrator()

    def twice(task: str) -> list[str]:
        with ThreadPoolExecutor(2) as pool:
            found = [pool.submit(contextvars.copy_context().run, work, f"{task}{i}") for i in range(2)]
        return [one.result() for one in found]

    def nest(k: str) -> object:
        time.sleep(_RACE.random() * 0.0005)
        return inner.run(twice, k, agent_name="inner").final_output

    ask("start")
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(contextvars.copy_context().run, nest, k) for k in "xyz"]
    work("last")
    return str([one.result() for one in found])


def all_of(store: MemoryStore) -> list[Record]:
    """Every record of every run, by run."""
    ids = sorted(summary.execution_id for summary in store.runs())
    return [record for execution_id in ids for record in store.read(execution_id)]


def written(store: MemoryStore) -> bytes:
    return "\n".join(json.dumps(record, sort_keys=True) for record in all_of(store)).encode()


class Tape:
    """A session that only listens: what a recording of several runs is made of."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Record]] = []
        self._runs = 0

    def ambient(self) -> None:
        return None

    def adopt(self, run: Any) -> Callable[[Record], None]:
        self._runs += 1
        name = f"run{self._runs}"
        return lambda record: self.records.append((name, record))


def recorded(agent: Any) -> tuple[Recording, object]:
    tape = Tape()
    context.set_session(tape)
    try:
        report = Orchestrator().run(agent, "t")
    finally:
        context.set_session(None)
    assert report.status == "SUCCESS", report.error
    return Recording.from_records(tape.records), report.final_output


def replayed(agent: Any, recording: Recording) -> tuple[bytes, object]:
    store = MemoryStore()
    report = Orchestrator(store=store).replay(agent, "t", recording, execution_id=replay_id(recording, "main"))
    assert report.status == "SUCCESS", report.error
    return written(store), report.final_output


def tools_of_langgraph() -> Any:
    from langchain.agents import create_agent
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.tools import tool

    class Model(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **_: Any) -> Any:
            return self

    @tool
    def search(k: str) -> str:
        """Look it up."""
        time.sleep(_RACE.random() * 0.004)
        return k

    def agent(task: str) -> str:
        calls = [{"name": "search", "args": {"k": k}, "id": f"c_{k}", "type": "tool_call"} for k in "abcd"]
        script = [AIMessage(content="", id="1", tool_calls=calls), AIMessage(content="done", id="2")]
        graph = create_agent(Model(messages=iter(script)), [search])
        return str(graph.invoke({"messages": [("user", task)]})["messages"][-1].content)

    return agent


@pytest.mark.parametrize(
    ("make", "times"),
    [
        (lambda: in_threads, 300),
        (lambda: in_tasks, 400),
        (lambda: nested_in_threads, 150),
        (tools_of_langgraph, 150),
    ],
    ids=["threads", "gather", "nested", "langgraph"],
)
def test_replays_write_the_same_bytes(make: Callable[[], Any], times: int) -> None:
    """A thousand replays in all: whole journals, with numbers, order, times and ids, are one and the same text."""
    agent = make()
    recording, output = recorded(agent)
    first, answered = replayed(agent, recording)
    assert answered == output
    began = time.monotonic()
    for _ in range(times - 1):
        again, answered = replayed(agent, recording)
        assert again == first
        assert answered == output
        assert time.monotonic() - began < 60, "too slow"


_FRESH = """
import sys
sys.path[:0] = {paths!r}
from test_replays_are_equal import *
if {save!r}:
    recording, _ = recorded(in_threads)
    recording.save({path!r})
recording = Recording.load({path!r})
written, _ = replayed(in_threads, recording)
sys.stdout.buffer.write(written)
"""


def test_replays_in_other_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """Neither the process nor its hash seed is in the journal of a replayed file."""
    here = str(Path(__file__).parent)
    found = set()
    for seed in ("0", "1", "random"):
        code = _FRESH.format(paths=[here, *sys.path], path=str(tmp_path / "r.oao.json"), save=seed == "0")
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        found.add(done.stdout)
    assert len(found) == 1
    assert len(next(iter(found)).splitlines()) > 20


def test_a_call_that_is_not_recorded_is_written_after_everything_that_waited() -> None:
    """Before anything happens, all that came before it is in the journal."""
    store = MemoryStore()
    recording, _ = recorded(in_threads)
    playback = Playback(recording)
    writer = Writer(store, "r", SystemClock())
    writer.follow(playback, nested=False)
    late = [event.n for event in recording.events if event.kind == "tool"][1:]
    writer.append("run.started", {"execution_id": "r", "agent": "a", "task": None})
    for n in late:
        writer.append("call", {"n": n}, n)
    assert [record["type"] for record in store.read("r")] == ["run.started"]
    writer.append("call", {"n": 99})
    assert [record.get("n") for record in store.read("r")] == [None, *late, 99]
    writer.append("call", {"n": 1}, 1)
    assert [record.get("n") for record in store.read("r")][-1] == 1
    assert [record["seq"] for record in store.read("r")] == [*range(1, len(late) + 4)]


def test_a_record_that_waited_and_cannot_be_kept_halts_its_own_run() -> None:
    """The run whose call let it go has done nothing wrong."""

    class Full(MemoryStore):
        def append(self, execution_id: str, epoch: int, record: Record) -> None:
            if record["type"] == "call":
                raise OSError("full")
            super().append(execution_id, epoch, record)

    recording, _ = recorded(in_threads)
    first, second = [event.n for event in recording.events][:2]
    playback = Playback(recording)
    ours, theirs = Writer(MemoryStore(), "ours", SystemClock()), Writer(Full(), "theirs", SystemClock())
    for writer in (ours, theirs):
        writer.follow(playback, nested=False)
    theirs.append("call", {"n": 2}, second)
    ours.append("call", {"n": 1}, first)
    ours.append("outcome", {"n": 1}, first)
    with pytest.raises(OSError, match="full"):
        theirs.append("state", {"state": "REVIEW"})
