"""What oao is, one idea a test: read from top to bottom."""

from __future__ import annotations

import asyncio
import json

from oao_harness import Orchestrator, PolicyViolation, StrictPolicy, model, tool


class DummyAgent:
    def invoke(self, task: str) -> dict[str, str]:
        return {"output": f"Processed: {task}"}


def test_an_orchestrator_runs_an_agent_and_reports() -> None:
    """Any object with `invoke` is an agent; the report says how it went."""
    report = Orchestrator().run(agent=DummyAgent(), task="Explain AI orchestration")

    assert report.status == "SUCCESS"
    assert report.final_output == "Processed: Explain AI orchestration"
    assert report.state_history == ["INIT", "PLAN", "EXECUTE", "REVIEW", "TERMINATE"]
    assert json.loads(report.json(indent=2))["agent_name"] == "DummyAgent"


def test_a_tool_passes_the_gate() -> None:
    """Each call of a tool inside of a run is counted and journaled; outside it is the plain function."""

    @tool
    def add(a: int, b: int) -> int:
        return a + b

    orchestrator = Orchestrator()
    report = orchestrator.run(lambda task: add(1, b=2), "add")

    assert report.final_output == 3
    assert report.tool_usage == {"add": 1}
    assert [record["type"] for record in orchestrator.store.read(report.execution_id)] == [
        "run.started",
        "state",
        "plan",
        "state",
        "call",
        "outcome",
        "state",
        "state",
        "run.finished",
    ]
    assert add(2, 2) == 4


def test_a_model_call_is_counted_in_tokens() -> None:
    """Tokens are read from what the model's answer reports."""

    @model(name="gpt-x")
    def ask(prompt: str) -> dict[str, object]:
        return {"content": "hello", "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}}

    report = Orchestrator().run(lambda task: ask(task)["content"], "hi")

    assert (report.model_calls, report.input_tokens, report.output_tokens, report.total_tokens) == (1, 12, 3, 15)
    assert not report.tokens_estimated


def test_a_policy_stops_a_runaway_agent() -> None:
    """The sixth call of five allowed ones does not happen."""
    ran: list[int] = []

    @tool
    def search(page: int) -> str:
        ran.append(page)
        return "try the next page"

    def runaway(task: str) -> None:
        page = 0
        while True:
            search(page)
            page += 1

    report = Orchestrator(policy=StrictPolicy(max_tool_calls=5)).run(runaway, "find it")

    assert report.status == "FAILED"
    assert report.violation == {
        "rule": "max_tool_calls",
        "plugin": "budget",
        "reason": "tool search: call 6, the limit is 5",
        "n": 6,
    }
    assert ran == [0, 1, 2, 3, 4]


def test_a_violation_cannot_be_caught_away() -> None:
    """An agent that swallows everything is refused for ever, and its run is FAILED whatever it returns."""
    ran: list[int] = []

    @tool
    def poke(n: int) -> None:
        ran.append(n)

    def stubborn(task: str) -> str:
        refusals = 0
        for n in range(100):
            try:
                poke(n)
            except BaseException as error:
                assert isinstance(error, PolicyViolation)
                refusals += 1
        return f"all is well, {refusals} refusals"

    report = Orchestrator(policy=StrictPolicy(max_tool_calls=2)).run(stubborn, "x")

    assert report.status == "FAILED"
    assert report.final_output is None
    assert ran == [0, 1]


def test_an_async_agent_is_run_by_run_and_by_run_async() -> None:
    """One core, two doors."""

    @tool
    async def fetch(url: str) -> str:
        await asyncio.sleep(0)
        return f"page {url}"

    async def agent(task: str) -> str:
        return await fetch(task)

    orchestrator = Orchestrator(policy=StrictPolicy())

    assert orchestrator.run(agent, "a").final_output == "page a"
    assert asyncio.run(orchestrator.run_async(agent, "b")).final_output == "page b"


def test_a_recorded_run_replays_without_its_model_and_tools() -> None:
    """A run's journal is a recording: played back, no body runs, and a changed request is refused."""
    from oao_harness.journal.recording import Recording

    ran: list[str] = []

    @tool
    def refund(order: str, amount: float) -> str:
        ran.append(order)
        return f"refunded {amount}"

    def agent_paying(amount: float) -> object:
        return lambda task: refund("o-1", amount)

    orchestrator = Orchestrator()
    live = orchestrator.run(agent_paying(49.99), "refund")
    recording = Recording.from_records(orchestrator.store.read(live.execution_id))
    ran.clear()

    same = orchestrator.replay(agent_paying(49.99), "refund", recording)
    changed = orchestrator.replay(agent_paying(499.9), "refund", recording)

    assert same.status == "SUCCESS"
    assert same.final_output == live.final_output
    assert changed.error == "replay: step 1 tool refund: amount 49.99 -> 499.9 (replay diverged)"
    assert ran == []
