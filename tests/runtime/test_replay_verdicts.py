"""Replay is judged like a live run: also what happened inside of a call, and what became of a verdict."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from oao_harness import Orchestrator, StrictPolicy, ToolPolicy, tool
from oao_harness.journal.recording import Recording
from oao_hookspecs import Modify, RunView, ToolCall, hookimpl


@tool
def inner(number: int) -> int:
    return number


@tool
def outer() -> int:
    return inner(1)


@tool
def in_threads() -> int:
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(inner, range(3)))


def agent(task: str) -> int:
    return outer()


def record(recorder: Orchestrator, recorded: object, task: str = "t") -> Recording:
    report = recorder.run(recorded, task)
    assert report.status == "SUCCESS"
    return Recording.from_records(recorder.store.read(report.execution_id))


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        (ToolPolicy(deny=["inner"]), "tools.deny"),
        (StrictPolicy(max_tool_calls=1, timeout_seconds=None), "max_tool_calls"),
    ],
)
def test_a_call_inside_of_a_served_call_is_judged(policy: object, rule: str) -> None:
    """It is not made again, but a policy that would refuse it live refuses it in replay."""
    recording = record(Orchestrator(), agent)
    for report in (Orchestrator(policy).run(agent, "t"), Orchestrator(policy).replay(agent, "t", recording)):
        assert (report.violation or {}).get("rule") == rule
        assert (report.status, report.tool_calls) == ("FAILED", 1)


def test_calls_from_threads_of_a_tool_belong_to_the_tool() -> None:
    """In replay its body does not run, and nobody would make them."""

    def threaded(task: str) -> int:
        return in_threads()

    report = Orchestrator().replay(threaded, "t", record(Orchestrator(), threaded))
    assert report.error is None
    assert (report.final_output, report.tool_calls) == (3, 4)


def test_a_modification_that_is_no_longer_made_is_a_divergence() -> None:
    """The recorded result is that of other arguments."""

    class Limits:
        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Modify:
            return Modify(call=dataclasses.replace(call, arguments={"number": 1}))

    def modified(task: str) -> int:
        return inner(100)

    recording = record(Orchestrator(Limits()), modified)
    assert Orchestrator(Limits()).replay(modified, "t", recording).final_output == 1
    report = Orchestrator().replay(modified, "t", recording)
    assert report.error == "replay: tool inner: modify when recorded, allow now (replay diverged)"


def test_a_recorded_result_that_cannot_be_read_is_a_divergence() -> None:
    """The agent must not catch it as if its tool had failed."""

    @dataclasses.dataclass
    class Local:
        number: int

    @tool
    def make() -> Local:
        return Local(1)

    def careful(task: str) -> int:
        try:
            return make().number
        except Exception:
            return 0

    report = Orchestrator().replay(careful, "t", record(Orchestrator(), careful))
    assert (report.violation or {}).get("rule") == "replay"
    assert "cannot be read" in (report.error or "")
