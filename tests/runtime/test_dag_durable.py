"""Graphs that stop in the middle: killed, suspended, forked. What has ended is never run again."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from oao_harness import (
    ConfigError,
    ExecutionReport,
    GraphExecutor,
    MemoryStore,
    Orchestrator,
    StrictPolicy,
    TaskGraph,
    TaskNode,
    ToolPolicy,
    UsageError,
    tool,
)
from oao_harness.journal.chain import intact
from oao_hookspecs import Principal

FLOW = Path(__file__).parent / "durable_flow.py"
ANNA = Principal(id="anna")


def statuses(results: dict[str, ExecutionReport]) -> list[str]:
    return [report.status for report in results.values()]


@tool
def pay(amount: int) -> str:
    PAID.append(amount)
    return f"paid {amount}"


@tool(effect="pure")
def look(what: str) -> str:
    return what


PAID: list[int] = []


class Flow:
    """A graph that counts which of its agents ran: `plan` -> `pay` (asks a person) and `other` -> `report`."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        PAID.clear()

    def agent(self, name: str, tool_: Any = None, argument: Any = None) -> Any:
        def run(task: object) -> object:
            self.ran[name] += 1
            return f"{name} {tool_(argument) if tool_ is not None else ''}".strip()

        return run

    def graph(self) -> TaskGraph:
        return TaskGraph(
            [
                TaskNode("plan", self.agent("plan", look, "x")),
                TaskNode("pay", self.agent("pay", pay, 7), "pay", {"plan"}),
                TaskNode("other", self.agent("other"), "other", {"plan"}),
                TaskNode("report", self.agent("report"), "report", {"pay", "other"}),
            ]
        )


def test_a_killed_workflow_goes_on_and_repeats_no_finished_node(tmp_path: Path) -> None:
    """`kill -9` in the middle of a node: that one begins anew, and each finished node and item ran once."""
    command = [sys.executable, str(FLOW), str(tmp_path / "flow.db"), str(tmp_path / "log")]

    killed = subprocess.run([*command, "kill"], capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -9, killed.stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ("first=SUCCESS items=SUCCESS each=SUCCESS deadly=SUCCESS last=SUCCESS [0, 10, 20]")
    counted = Counter((tmp_path / "log").read_text().split("\n"))
    assert counted.pop("deadly begins") == 2
    assert counted == {"first": 1, "items": 1, "item 0": 1, "item 1": 1, "item 2": 1, "last": 1, "": 1}
    over = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "is over (SUCCESS)" in over.stderr


def test_a_node_that_waits_for_a_person_suspends_the_workflow() -> None:
    """The other branch comes to its end; after the answer only what had not ended runs."""
    flow = Flow()
    executor = GraphExecutor(flow.graph(), ToolPolicy(ask=["pay"]), workflow_id="flow")

    held = executor.execute("topic")

    assert held.workflow.status == "SUSPENDED"
    assert [held[name].status for name in ("plan", "pay", "report")] == ["SUCCESS", "SUSPENDED", "QUEUED"]
    assert held["pay"].approvals[0]["tool"] == "pay"
    assert held["report"].error == "waits: pay is suspended"
    assert PAID == []
    executor.orchestrator.approve("last", by=ANNA)
    results = executor.resume()

    assert statuses(results) == ["SUCCESS"] * 4
    assert results["report"].final_output == "report"
    assert results["plan"].final_output == "plan x"
    assert PAID == [7]
    assert (flow.ran["plan"], flow.ran["other"], flow.ran["report"], flow.ran["pay"]) == (1, 1, 1, 2)
    intact(list(executor.store.read("flow")), "flow")


def test_siblings_of_a_held_node_finish_their_current_call() -> None:
    """A call that is under way when another node is held has an outcome, and is not made again."""
    import asyncio

    made: list[str] = []

    @tool
    async def long(what: str) -> str:
        made.append(what)
        await asyncio.sleep(0.4)
        return what

    async def sibling(task: object) -> list[str]:
        return [await long("one"), await long("two")]

    async def payer(task: object) -> str:
        await asyncio.sleep(0.05)
        return pay(1)

    PAID.clear()
    graph = TaskGraph([TaskNode("long", sibling), TaskNode("pay", payer)])
    executor = GraphExecutor(graph, ToolPolicy(ask=["pay"]), workflow_id="flow")

    held = executor.execute("x")
    assert statuses(held) == ["SUSPENDED", "SUSPENDED"]
    assert made == ["one"]
    executor.orchestrator.approve("last", by=ANNA)
    results = executor.resume()

    assert results["long"].final_output == ["one", "two"]
    assert made == ["one", "two"]
    assert PAID == [1]


def test_what_finished_nodes_spent_counts_after_a_resume() -> None:
    """A limit over the workflow is no other one because the workflow stopped in between."""

    def agent(task: object) -> object:
        return [look("a"), look("b"), look("c")]

    def payer(task: object) -> object:
        return [pay(1), pay(2)]

    PAID.clear()
    graph = TaskGraph([TaskNode("a", agent), TaskNode("b", payer, {"a"})])
    policies = [StrictPolicy(max_tool_calls=4, timeout_seconds=None), ToolPolicy(ask=["pay"])]
    executor = GraphExecutor(graph, policies, workflow_id="flow")
    executor.execute("x")
    executor.orchestrator.approve("last", by=ANNA)

    results = executor.resume()

    assert PAID == [1]
    assert results["b"].status == "FAILED"
    assert "max_tool_calls" in str(results.workflow.error)
    assert results.workflow.tool_calls == 4


def test_a_changed_graph_is_refused() -> None:
    """Going on with other edges or another agent is refused by name, unless the caller says so."""
    flow = Flow()
    store = MemoryStore()
    GraphExecutor(flow.graph(), ToolPolicy(ask=["pay"]), workflow_id="flow", store=store).execute("topic")
    changed = flow.graph()
    changed.add_node(TaskNode("new", flow.agent("new"), {"report"}))
    executor = GraphExecutor(changed, ToolPolicy(ask=["pay"]), store=store)

    with pytest.raises(UsageError, match="edges of the graph"):
        executor.resume("flow")
    executor.orchestrator.approve("last", by=ANNA)
    assert statuses(executor.resume("flow", allow_changes=True)) == ["SUCCESS"] * 5


def test_another_task_under_the_same_id_is_refused() -> None:
    """An id names one workflow on one task."""
    executor = GraphExecutor(Flow().graph(), ToolPolicy(ask=["pay"]), workflow_id="flow")
    executor.execute("topic")

    with pytest.raises(UsageError, match="begun with another task, 'topic'"):
        executor.execute("another topic")


def test_a_fork_runs_a_node_and_what_depends_on_it_anew() -> None:
    """All others keep their results, and the old run stays as it is."""
    flow = Flow()
    executor = GraphExecutor(flow.graph())
    first = executor.execute("topic")
    before = list(executor.store.read(first.workflow.execution_id))

    again = executor.fork(first.workflow.execution_id, at="other")

    assert statuses(again) == ["SUCCESS"] * 4
    assert flow.ran == {"plan": 1, "pay": 1, "other": 2, "report": 2}
    assert again["plan"].execution_id == first["plan"].execution_id
    assert again["other"].execution_id != first["other"].execution_id
    assert again.workflow.execution_id != first.workflow.execution_id
    assert list(executor.store.read(first.workflow.execution_id)) == before
    intact(list(executor.store.read(again.workflow.execution_id)), again.workflow.execution_id)
    forks = [run for run in executor.store.runs() if run.forked_from is not None]
    assert [run.execution_id for run in forks] == [again.workflow.execution_id]


def test_a_fork_with_an_edited_result() -> None:
    """The node does not run, and what depends on it is given the other result."""
    flow = Flow()
    graph = flow.graph()
    graph.add_node(TaskNode("told", lambda task: task, lambda outputs: outputs["report"], {"report"}))
    executor = GraphExecutor(graph)
    first = executor.execute("topic")

    again = executor.fork(first.workflow.execution_id, results={"report": {"by": "hand"}})

    assert again["told"].final_output == {"by": "hand"}
    assert again["report"].final_output == {"by": "hand"}
    assert flow.ran["report"] == 1


def test_a_fork_of_a_failed_workflow_runs_what_failed_anew() -> None:
    """Without a node, a fork tries again what failed and what was skipped for it."""
    works: list[bool] = []
    flow = Flow()

    def moody(task: object) -> str:
        if not works:
            raise ValueError("not today")
        return "fine"

    graph = TaskGraph(
        [TaskNode("a", flow.agent("a")), TaskNode("b", moody, {"a"}), TaskNode("c", flow.agent("c"), {"b"})]
    )
    executor = GraphExecutor(graph)
    first = executor.execute("x")
    works.append(True)

    again = executor.fork(first.workflow.execution_id)

    assert statuses(first) == ["SUCCESS", "FAILED", "SKIPPED"]
    assert statuses(again) == ["SUCCESS"] * 3
    assert flow.ran == {"a": 1, "c": 1}


def test_a_fork_of_nothing_that_can_be_forked() -> None:
    """An unknown node, an unknown run, a run of no graph: refused in words."""
    executor = GraphExecutor(Flow().graph())
    first = executor.execute("x")
    other = Orchestrator(store=executor.store).run(lambda task: task, "x")

    with pytest.raises(ConfigError, match="did you mean 'report'"):
        executor.fork(first.workflow.execution_id, at="reprot")
    with pytest.raises(UsageError, match="no run 'nowhere'"):
        executor.fork("nowhere")
    with pytest.raises(UsageError, match="none of a graph"):
        executor.fork(other.execution_id)
    with pytest.raises(ConfigError, match="cannot both"):
        executor.fork(first.workflow.execution_id, at="plan", results={"plan": 1})
    with pytest.raises(UsageError, match="which workflow"):
        executor.resume()


def test_a_result_that_is_gone_is_not_made_up() -> None:
    """Where the journal of a finished node was deleted, what depends on it does not run on nothing."""
    flow = Flow()
    executor = GraphExecutor(flow.graph(), ToolPolicy(ask=["pay"]), workflow_id="flow")
    held = executor.execute("topic")
    executor.store.delete(held["plan"].execution_id)

    results = executor.resume()

    assert results["plan"].status == "FAILED"
    assert "not in this store any more" in str(results["plan"].error)
    assert results["report"].status == "SKIPPED"
