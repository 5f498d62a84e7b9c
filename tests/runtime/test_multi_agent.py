"""Several agents side by side: reports in order, one budget, contained errors, fairness."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from oao_harness import (
    ConfigError,
    ExecutionReport,
    MemoryStore,
    MultiAgentOrchestrator,
    Orchestrator,
    StrictPolicy,
    ToolPolicy,
    tool,
)


class DummyAgent:
    """The agent of the seed's README."""

    def __init__(self, name: str) -> None:
        self.name = name

    def invoke(self, task: object) -> dict[str, str]:
        return {"output": f"{self.name} processed: {task}"}


@tool
def look(what: object) -> object:
    return what


def looking(task: object) -> object:
    return [look(1), look(2)]


def statuses(results: dict[str, ExecutionReport]) -> dict[str, str]:
    return {name: report.status for name, report in results.items()}


async def test_the_example_of_the_seed() -> None:
    """Each agent has a report of its own, in the order asked."""
    agents = {"researcher": DummyAgent("Researcher"), "critic": DummyAgent("Critic")}
    multi = MultiAgentOrchestrator(max_concurrency=2)

    results = await multi.run_multi_async(agents=agents, task="Discuss AI governance")

    assert list(results) == ["researcher", "critic"]
    assert [report.status for report in results.values()] == ["SUCCESS", "SUCCESS"]
    assert results["critic"].final_output == "Critic processed: Discuss AI governance"
    assert results["critic"].agent_name == "Critic"
    assert results["critic"].state_history == ["INIT", "PLAN", "EXECUTE", "REVIEW", "TERMINATE"]
    assert results.workflow.final_output == {name: report.final_output for name, report in results.items()}


def test_one_orchestrator_serves_many_runs_sync_and_in_a_loop() -> None:
    """`run_multi` from plain code and from inside of a loop; the store of the orchestrator has them all."""
    store = MemoryStore()
    multi = MultiAgentOrchestrator(store=store)
    agents = {"a": DummyAgent("a"), "b": DummyAgent("b")}

    async def inside() -> dict[str, ExecutionReport]:
        return multi.run_multi(agents, "two")

    assert multi.run_multi(agents, "one")["a"].final_output == "a processed: one"
    assert asyncio.run(inside())["b"].final_output == "b processed: two"
    assert len(store.runs()) == 6
    assert multi.store is store


def test_errors_are_contained_and_every_result_is_a_report() -> None:
    """One that raises, one that cannot be run, one that is refused: the others succeed, in the order asked."""

    def raises(task: object) -> object:
        raise SystemExit(3) if task == "exit" else ValueError("boom")

    agents: dict[str, Any] = {"bad": raises, "exits": raises, "none": 42, "denied": looking, "good": DummyAgent("good")}
    multi = MultiAgentOrchestrator(policies={"denied": ToolPolicy(deny=["look"])})
    results = multi.run_multi(agents, "x", tasks={"exits": "exit"})

    assert statuses(results) == {
        "bad": "FAILED",
        "exits": "FAILED",
        "none": "FAILED",
        "denied": "FAILED",
        "good": "SUCCESS",
    }
    assert all(isinstance(report, ExecutionReport) for report in results.values())
    assert results["bad"].error == "ValueError: boom"
    assert str(results.workflow.error).startswith("GraphError: node 'bad' failed: ValueError: boom; node 'exits'")


def test_each_may_have_a_task_of_its_own() -> None:
    """`tasks=` names those that are asked something else; a task may be any object, also a function."""
    results = MultiAgentOrchestrator().run_multi(
        {"a": DummyAgent("a"), "b": DummyAgent("b"), "c": lambda task: task is len}, "all", tasks={"b": 7, "c": len}
    )

    assert [report.final_output for report in results.values()] == ["a processed: all", "b processed: 7", True]


def test_one_budget_over_all_agents() -> None:
    """Three agents of two calls each do not pass a limit of four together; each alone would."""
    multi = MultiAgentOrchestrator(1, StrictPolicy(max_tool_calls=4))
    results = multi.run_multi({"a": looking, "b": looking, "c": looking}, "x")

    assert statuses(results) == {"a": "SUCCESS", "b": "SUCCESS", "c": "FAILED"}
    assert results.workflow.tool_calls == 4
    assert (results.workflow.violation or {})["rule"] == "max_tool_calls"


def test_agents_that_hand_work_to_each_other_are_runs_of_one_tree() -> None:
    """A run that an agent's tool starts draws on the same budget, and is nested in the agent's run."""
    calls: list[str] = []

    @tool
    def delegate(task: str) -> object:
        return Orchestrator().run(inner, task).final_output

    @tool
    def work(task: str) -> str:
        calls.append(task)
        return task

    def inner(task: str) -> object:
        return [work(task), work(task)]

    def outer(task: str) -> object:
        return delegate(task)

    policy = StrictPolicy(max_tool_calls=4, timeout_seconds=None)
    multi = MultiAgentOrchestrator(1, policy)
    results = multi.run_multi({"one": outer, "two": outer}, "x")

    assert statuses(results) == {"one": "SUCCESS", "two": "FAILED"}
    assert len(calls) == 2
    tree = {run.execution_id: run.parent for run in multi.store.runs()}
    nested = [run for run in multi.store.runs() if run.agent_name == "inner"]
    assert {tree[str(run.parent)] for run in nested} == {results.workflow.execution_id}


@pytest.mark.parametrize("limit", [1, 3, 9])
def test_the_peak_is_the_limit(limit: int) -> None:
    """Sync agents run side by side in threads, as many as the limit says."""
    lock, inside, peak = threading.Lock(), [0], [0]

    def agent(task: object) -> None:
        with lock:
            inside[0] += 1
            peak[0] = max(peak[0], inside[0])
        time.sleep(0.05)
        with lock:
            inside[0] -= 1

    MultiAgentOrchestrator(limit).run_multi({f"a{index}": agent for index in range(9)}, "x")

    assert peak[0] == limit


def test_a_hanging_agent_does_not_starve_the_others() -> None:
    """Twenty others end while six hang; those are reported at their limit, each by itself."""
    release = threading.Event()

    def hangs(task: object) -> None:
        release.wait(20)

    agents: dict[str, Any] = {f"hangs{index}": hangs for index in range(6)}
    agents |= {f"quick{index}": DummyAgent("quick") for index in range(20)}
    limited = StrictPolicy(timeout_seconds=0.5)
    began = time.monotonic()
    results = MultiAgentOrchestrator(8, policies={name: limited for name in agents if "hangs" in name}).run_multi(
        agents, "x"
    )
    release.set()

    assert time.monotonic() - began < 5
    assert [report.status for name, report in results.items() if "hangs" in name] == ["FAILED"] * 6
    assert [report.status for name, report in results.items() if "quick" in name] == ["SUCCESS"] * 20
    assert "timeout" in str(results["hangs0"].error)


def test_a_thousand_sync_agents_with_a_limit_of_five_seconds_meet_no_false_timeout() -> None:
    """The clock of an agent starts when it runs, not while it waits for its turn."""

    def agent(task: object) -> object:
        time.sleep(0.002)
        return task

    agents = {f"a{index}": agent for index in range(1000)}
    policies = {name: StrictPolicy(timeout_seconds=5) for name in agents}
    results = MultiAgentOrchestrator(20, policies=policies).run_multi(agents, "x")

    assert {report.status for report in results.values()} == {"SUCCESS"}
    assert list(results) == list(agents)


def test_a_policy_of_one_agent_holds_for_it_alone() -> None:
    """Two agents, one of them under a stricter policy."""
    results = MultiAgentOrchestrator(policies={"tied": StrictPolicy(max_tool_calls=1)}).run_multi(
        {"tied": looking, "free": looking}, "x"
    )

    assert statuses(results) == {"tied": "FAILED", "free": "SUCCESS"}


def test_listeners_hear_of_every_agent_once() -> None:
    """A plugin that only listens hears the calls of all agents."""
    from oao_hookspecs import CallFinished, hookimpl

    heard: list[str] = []

    class Listens:
        @hookimpl
        def oao_call_finished(self, event: CallFinished) -> None:
            heard.append(event.execution_id)

    results = MultiAgentOrchestrator(plugins=[Listens()]).run_multi({"a": looking, "b": looking}, "x")

    assert sorted(heard) == sorted([results["a"].execution_id] * 2 + [results["b"].execution_id] * 2)


@pytest.mark.parametrize("limit", [0, -1, True, False, 1.5, "3", None])
def test_a_concurrency_that_is_none_is_refused(limit: Any) -> None:
    """Not waited on for ever."""
    with pytest.raises(ConfigError, match="max_concurrency="):
        MultiAgentOrchestrator(max_concurrency=limit)


@pytest.mark.parametrize(
    ("agents", "tasks", "said"),
    [
        ({}, None, "at least one agent"),
        ([DummyAgent("a")], None, "at least one agent"),
        ({"a": DummyAgent("a")}, {"b": 1}, "a task for 'b', and no such agent"),
    ],
)
def test_bad_input_is_refused_in_words(agents: Any, tasks: Any, said: str) -> None:
    """Before anything runs."""
    with pytest.raises(ConfigError, match=said):
        MultiAgentOrchestrator().run_multi(agents, "x", tasks=tasks)


def test_a_policy_for_nobody_is_refused() -> None:
    """A misspelled name must not leave an agent without its policy."""
    with pytest.raises(ConfigError, match="a policy for 'crtic', and no such agent; there are critic"):
        MultiAgentOrchestrator(policies={"crtic": "strict"}).run_multi({"critic": DummyAgent("c")}, "x")
