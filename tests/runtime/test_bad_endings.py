"""However a run ends, there is one report, and it says what happened."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from oao_harness import Orchestrator, StrictPolicy, ToolPolicy, tool
from oao_harness.errors import StoreError
from oao_harness.stores.memory import MemoryStore
from oao_hookspecs import Record, RunView, StateEntered, hookimpl


class Unprintable(Exception):
    """Raises itself when somebody looks at it."""

    def __str__(self) -> str:
        raise Unprintable

    __repr__ = __str__


class _Resists:
    def __repr__(self) -> str:
        raise ValueError("look away")


_SELF: list[object] = []
_SELF.append(_SELF)


@pytest.mark.parametrize(
    "value", [b"\xff", _SELF, _Resists(), "\ud800", {(1, 2): b"\xfe"}, 10**5000], ids=["1", "2", "3", "4", "5", "6"]
)
def test_a_task_or_an_output_that_is_no_json_does_not_cost_the_report(value: object) -> None:
    """The agent's work is done: the report is made, can be printed, and the result is handed on as it is."""

    def agent(task: object) -> object:
        return task

    report = Orchestrator().run(agent, value)
    assert report.status == "SUCCESS"
    assert report.result is value
    assert report.json(indent=2)


def test_an_agent_that_raises_the_unprintable_is_reported() -> None:
    """And so is half of a surrogate pair in a message."""

    def agent(task: str) -> None:
        if task == "a":
            raise Unprintable
        raise ValueError("\ud800")

    orchestrator = Orchestrator()
    assert "Unprintable" in (orchestrator.run(agent, "a").error or "")
    assert "ValueError" in orchestrator.run(agent, "b").json()


def test_a_denial_inside_of_a_task_group_is_reported() -> None:
    """A sync agent with an event loop of its own raises a group, which is no Exception."""

    @tool
    async def send() -> None: ...

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(send())

    def agent(task: str) -> None:
        asyncio.run(main())

    report = Orchestrator(ToolPolicy(deny=["send"])).run(agent, "t")
    assert report.error == "tools.deny: tool send is denied"


def test_a_nested_run_past_the_deadline_of_its_outer_run_is_stopped() -> None:
    """It has no limit of its own to name."""
    inner = Orchestrator()
    errors: list[str | None] = []

    @tool
    def look() -> None:
        time.sleep(0.01)

    def sub_agent(task: str) -> None:
        while True:
            look()

    def agent(task: str) -> None:
        errors.append(inner.run(sub_agent, task).error)

    policy = StrictPolicy(timeout_seconds=0.1, max_steps=None, max_tool_calls=None)
    report = Orchestrator(policy).run(agent, "t")
    assert report.violation is not None
    assert report.violation["rule"] == "timeout"


class _Full(MemoryStore):
    """A store that can be written to so many times and no more."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        if not self._room:
            raise StoreError("disk full")
        self._room -= 1
        super().append(execution_id, epoch, *records)


@pytest.mark.parametrize("room", range(4))
def test_a_journal_that_fails_fails_the_run_and_not_its_caller(room: int) -> None:
    """Beginning, call, outcome, end: the caller gets a report, and no body ran that was not written first."""
    ran: list[int] = []

    @tool
    def send() -> None:
        ran.append(room)

    def agent(task: str) -> None:
        send()

    report = Orchestrator(store=_Full(room)).run(agent, "t")
    assert report.status == "FAILED"
    assert "disk full" in (report.error or "")
    assert bool(ran) == (room >= 2)


def test_a_denial_while_the_run_ends_is_in_the_report() -> None:
    """A thread that the agent left behind is denied between the review and the report."""
    ending, denied = threading.Event(), threading.Event()

    class Waits:
        @hookimpl
        def oao_state_entered(self, event: StateEntered, run: RunView) -> None:
            if event.state == "TERMINATE":
                ending.set()
                assert denied.wait(10)

    @tool
    def send() -> None: ...

    def agent(task: str) -> str:
        def later() -> None:
            assert ending.wait(10)
            try:
                send()
            except BaseException:
                denied.set()

        threading.Thread(target=later).start()
        return "done"

    report = Orchestrator(ToolPolicy(deny=["send"]), plugins=[Waits()]).run(agent, "t")
    assert report.error == "tools.deny: tool send is denied"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_do_nothing_in_the_name_of_the_run() -> None:
    """It has copies of the budget and of the journal's pen: the run's limit and its records would be worth nothing."""

    @tool
    def send() -> str:
        return "sent"

    def agent(task: str) -> str:
        send()
        child = os.fork()
        if child == 0:
            code = 7
            try:
                send()
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        send()
        return f"child {os.waitstatus_to_exitcode(status)}"

    report = Orchestrator(StrictPolicy(timeout_seconds=None)).run(agent, "t")
    assert report.error is None
    assert report.final_output == "child 7"
    assert report.tool_calls == 2


def test_the_execution_hash_is_the_same_in_every_process() -> None:
    """The order of a set in an agent's code is not; it must not be part of the hash."""
    code = (
        "from oao_harness import Orchestrator\n"
        "def agent(task): return task in {'alpha', 'beta', 'gamma', 'delta'}\n"
        "print(Orchestrator().run(agent, 'x').execution_hash)\n"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(hashes) == 1


class _Counting(MemoryStore):
    """A store that counts how often it is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[object]] = []

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        self.batches.append([record.get("state", record["type"]) for record in records])
        super().append(execution_id, epoch, *records)


class _Watching:
    """Asserts that what it hears is in the store."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.missing: list[str] = []

    @hookimpl
    def oao_state_entered(self, event: StateEntered, run: RunView) -> None:
        if event.state not in [one.get("state") for one in self.store.read(run.execution_id)]:
            self.missing.append(event.state)


def test_what_nothing_depends_on_is_written_together() -> None:
    """The beginning of a run is on the disk before its agent's code begins, in one piece; and so is its end."""
    store = _Counting()
    seen: list[int] = []

    def agent(task: str) -> None:
        seen.append(len(store.batches))

    Orchestrator(store=store).run(agent, "t")
    assert store.batches == [
        ["run.started", "PLAN", "plan", "ungoverned", "EXECUTE"],
        ["REVIEW", "TERMINATE", "run.finished"],
    ]
    assert seen == [1]


def test_observers_hear_what_is_journaled() -> None:
    """Where somebody observes the states, each of them is in the store first."""
    store = _Counting()
    watching = _Watching(store)
    Orchestrator(store=store, plugins=[watching]).run(lambda task: None, "t")
    assert watching.missing == []
    assert len(store.batches) > 2
