"""Graphs of agents: order, what flows, failures, conditions, fan-out, limits, bad input."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from oao_harness import ConfigError, ExecutionReport, Orchestrator, StrictPolicy, ToolPolicy, tool
from oao_harness.runtime.dag import GraphExecutor, Retries, TaskGraph, TaskNode


class Agent:
    """As in the seed: an object with `invoke`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def invoke(self, task: object) -> dict[str, object]:
        return {"output": f"{self.name}({task})"}


def failing(task: object) -> object:
    raise ValueError(f"no {task}")


def same(task: object) -> object:
    return task


async def slow(task: object) -> object:
    await asyncio.sleep(0.02)
    return task


@tool
def look(what: object) -> object:
    return what


def looking(task: object) -> object:
    return look(str(task))


def statuses(results: dict[str, ExecutionReport]) -> dict[str, str]:
    return {name: report.status for name, report in results.items()}


def diamond() -> TaskGraph:
    """The graph of the seed's README."""
    graph = TaskGraph()
    graph.add_node(TaskNode("research", Agent("researcher"), "Research topic X"))
    graph.add_node(TaskNode("draft", Agent("writer"), "Draft article", dependencies={"research"}))
    graph.add_node(TaskNode("critique", Agent("critic"), "Critique draft", dependencies={"research"}))
    graph.add_node(TaskNode("polisher", Agent("polisher"), "Improve draft", dependencies={"critique", "draft"}))
    return graph


def test_the_graph_of_the_seed() -> None:
    """Results come in the order of the nodes, and each text task has what its dependencies returned appended."""
    results = GraphExecutor(diamond()).execute("Write a blog post about AI")

    assert list(results) == ["research", "draft", "critique", "polisher"]
    assert set(statuses(results).values()) == {"SUCCESS"}
    assert results["research"].final_output == "researcher(Research topic X)"
    assert results["draft"].final_output == (
        "writer(Draft article\n\nResult of research:\nresearcher(Research topic X))"
    )
    assert "Result of critique:" in results["polisher"].final_output
    assert results.workflow.status == "SUCCESS"
    assert results.workflow.final_output == results["polisher"].final_output


def test_the_positional_form_with_dependencies() -> None:
    """`TaskNode(name, agent, {"dep"})`: the node is asked the task of the graph."""
    graph = TaskGraph([TaskNode("a", same), TaskNode("b", same, {"a"}), TaskNode("c", same, ["a", "b"])])

    results = GraphExecutor(graph).execute("topic")

    assert results["a"].final_output == "topic"
    assert results["b"].final_output == "topic\n\nResult of a:\ntopic"
    assert graph.nodes["c"].dependencies == ("a", "b")


def test_values_flow_to_who_wants_them() -> None:
    """A task that is a function is called with the outputs, and with the task of the graph where it takes two."""
    graph = TaskGraph(
        [
            TaskNode("numbers", lambda _: [1, 2, 3]),
            TaskNode("sum", sum, lambda outputs: outputs["numbers"], {"numbers"}),
            TaskNode("told", same, lambda outputs, asked: {"asked": asked, **outputs}, {"sum"}),
            TaskNode("as it is", same, {"plain": True}, {"sum"}),
        ]
    )

    results = GraphExecutor(graph).execute("add")

    assert results["sum"].final_output == 6
    assert results["told"].final_output == {"asked": "add", "sum": 6}
    assert results["as it is"].final_output == {"plain": True}
    assert results.workflow.final_output == {"told": {"asked": "add", "sum": 6}, "as it is": {"plain": True}}


async def test_a_node_starts_when_its_own_dependencies_are_done() -> None:
    """A slow node of the same level delays only what depends on it."""
    released = asyncio.Event()
    seen: list[str] = []

    async def waits(task: object) -> str:
        await asyncio.wait_for(released.wait(), 5)
        return "slow"

    async def releases(task: object) -> str:
        seen.append("after quick")
        released.set()
        return "done"

    graph = TaskGraph([TaskNode("quick", same), TaskNode("slow", waits), TaskNode("next", releases, {"quick"})])
    results = await GraphExecutor(graph).execute_async("x")

    assert set(statuses(results).values()) == {"SUCCESS"}
    assert seen == ["after quick"]


def test_a_failed_node_stops_its_dependents_and_not_its_cousins() -> None:
    """Dependents are SKIPPED and say for whom; the workflow fails in one line that names the nodes."""
    ran: list[str] = []

    def noted(task: object) -> object:
        ran.append("cousin")
        return task

    graph = TaskGraph(
        [
            TaskNode("bad", failing),
            TaskNode("child", same, {"bad"}),
            TaskNode("grandchild", same, {"child"}),
            TaskNode("good", slow),
            TaskNode("cousin", noted, {"good"}),
            TaskNode("both", same, {"cousin", "grandchild"}),
        ]
    )
    results = GraphExecutor(graph).execute("luck")

    assert statuses(results) == {
        "bad": "FAILED",
        "child": "SKIPPED",
        "grandchild": "SKIPPED",
        "good": "SUCCESS",
        "cousin": "SUCCESS",
        "both": "SKIPPED",
    }
    assert results["bad"].error == "ValueError: no luck"
    assert results["child"].error == "not run: node 'bad' failed, which it depends on"
    assert results["grandchild"].error == "not run: node 'bad' failed, which it depends on (through 'child')"
    assert ran == ["cousin"]
    assert results.workflow.status == "FAILED"
    assert results.workflow.error == (
        "GraphError: node 'bad' failed: ValueError: no luck; not run: child, grandchild, both"
    )


def test_conditional_edges_choose_a_branch_and_join_again() -> None:
    """A node whose condition is false is skipped; what joins the branches runs with the one that ran."""

    def graph(label: str) -> TaskGraph:
        return TaskGraph(
            [
                TaskNode("sort", lambda _: label),
                TaskNode("refund", lambda _: "refunded", {"sort"}, when=lambda outputs: outputs["sort"] == "refund"),
                TaskNode("reply", lambda _: "replied", {"sort"}, when=lambda outputs: outputs["sort"] != "refund"),
                TaskNode("only after a refund", same, {"refund"}),
                TaskNode("close", same, lambda outputs: outputs, {"refund", "reply"}),
            ]
        )

    results = GraphExecutor(graph("question")).execute("mail")

    assert results.workflow.status == "SUCCESS"
    assert results["refund"].error == "not run: its condition is false"
    assert results["only after a refund"].status == "SKIPPED"
    assert results["close"].final_output == {"reply": "replied"}
    assert GraphExecutor(graph("refund")).execute("mail")["close"].final_output == {"refund": "refunded"}


def test_a_condition_or_a_task_that_fails_is_a_failed_node() -> None:
    """The user's own functions are contained like agents."""

    def broken(outputs: object) -> object:
        raise KeyError("nothing there")

    graph = TaskGraph(
        [TaskNode("a", same), TaskNode("b", same, {"a"}, when=broken), TaskNode("c", same, broken, {"a"})]
    )
    results = GraphExecutor(graph).execute("x")

    assert results["b"].error == "its condition failed: KeyError: 'nothing there'"
    assert results["c"].status == "FAILED"
    assert "KeyError" in str(results["c"].error)


def test_dynamic_fan_out_keeps_the_order_and_the_concurrency_limit() -> None:
    """The agent runs once for each item of a list, and no more agents at once than the limit says."""
    peak = Peak()

    async def square(task: int) -> int:
        async with peak:
            await asyncio.sleep(0.001 * (20 - task))
        return task * task

    graph = TaskGraph(
        [
            TaskNode("list", lambda _: list(range(20))),
            TaskNode("squares", square, over="list"),
            TaskNode("sum", sum, lambda outputs: outputs["squares"], {"squares"}),
            TaskNode("none", square, lambda outputs: [], {"list"}),
        ]
    )
    results = GraphExecutor(graph, max_concurrency=4).execute("go")

    assert results["squares"].final_output == [n * n for n in range(20)]
    assert results["sum"].final_output == sum(n * n for n in range(20))
    assert peak.most == 4


class Peak:
    """How many were inside at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __aenter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    async def __aexit__(self, *error: object) -> None:
        self.now -= 1


def test_fan_out_over_what_is_no_list_or_is_empty() -> None:
    """No list is a failed node that says so; an empty one is an empty result."""
    graph = TaskGraph(
        [
            TaskNode("text", lambda _: "abc"),
            TaskNode("bad", same, over="text"),
            TaskNode("empty", lambda _: []),
            TaskNode("nothing", same, over="empty"),
        ]
    )
    results = GraphExecutor(graph).execute("x")

    assert results["bad"].error == "ConfigError: node 'bad' runs over what 'text' returns: that is no list, but 'abc'"
    assert results["nothing"].status == "SUCCESS"
    assert results["nothing"].final_output == []


def test_a_failed_item_fails_its_node_and_names_itself() -> None:
    """The other items run to their end."""
    ran: list[int] = []

    def picky(task: int) -> int:
        ran.append(task)
        if task == 1:
            raise ValueError("not one")
        return task

    graph = TaskGraph([TaskNode("list", lambda _: [0, 1, 2]), TaskNode("each", picky, over="list")])
    results = GraphExecutor(graph).execute("x")

    assert sorted(ran) == [0, 1, 2]
    assert results["each"].error == "GraphError: node 'each[1]' failed: ValueError: not one"


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_nodes_run_at_once_than_the_limit_says(limit: int) -> None:
    """The peak is the limit, exactly."""
    peak = Peak()

    async def agent(task: object) -> None:
        async with peak:
            await asyncio.sleep(0.005)

    graph = TaskGraph(TaskNode(f"n{index}", agent) for index in range(9))
    GraphExecutor(graph, max_concurrency=limit).execute("x")

    assert peak.most == limit


def test_a_node_is_tried_again() -> None:
    """Another try goes on in the same run; what a failed one cost is in one report."""
    tries: list[int] = []

    def flaky(task: object) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return "there"

    again = Retries(times=3, first_s=0.001, most_s=0.01, transient_only=False)
    graph = TaskGraph([TaskNode("flaky", flaky, retries=again), TaskNode("after", same, {"flaky"})])
    results = GraphExecutor(graph).execute("x")

    assert len(tries) == 3
    assert results["flaky"].final_output == "there"
    assert results["after"].status == "SUCCESS"


def test_tries_come_to_an_end() -> None:
    """One more failure than there are tries is a failure, and one try more was made."""
    tries: list[int] = []

    def hopeless(task: object) -> str:
        tries.append(1)
        raise ValueError("never")

    again = Retries(times=2, first_s=0.001, most_s=0.01, transient_only=False)
    results = GraphExecutor(TaskGraph([TaskNode("a", hopeless, retries=again)])).execute("x")

    assert len(tries) == 3
    assert results["a"].error == "ValueError: never"


@pytest.mark.parametrize(("shape", "count"), [("chain", 3_000), ("fan", 1000)])
def test_thousands_of_nodes(shape: str, count: int) -> None:
    """A chain of 3,000 nodes (Python allows 1,000 calls) in reverse order, and a wide fan-out: no recursion."""

    async def agent(task: object) -> int:
        return 1

    before: Callable[[int], set[str]] = lambda n: {f"n{n - 1 if shape == 'chain' else 0}"}  # noqa: E731
    nodes = [TaskNode("n0", agent), *(TaskNode(f"n{n}", agent, "t", before(n)) for n in range(1, count))]
    graph = TaskGraph(reversed(nodes))
    results = GraphExecutor(graph).execute("x")

    assert len(results) == count
    assert results.workflow.status == "SUCCESS"


def test_the_cost_of_a_node_does_not_grow_with_the_graph() -> None:
    """Nodes per second in a graph of 1,600 are at least a third of those in one of 200."""

    async def agent(task: object) -> int:
        return 1

    def per_node(count: int) -> float:
        graph = TaskGraph(TaskNode(f"n{n}", agent, "t", {"n0"} if n else ()) for n in range(count))
        began = time.process_time()
        GraphExecutor(graph).execute("x")
        return (time.process_time() - began) / count

    per_node(100)
    assert per_node(1600) < 3 * per_node(200)


def test_the_policy_holds_over_all_nodes_together() -> None:
    """Three nodes of two tool calls each pass no limit of four, though each alone would; every node has a report."""

    def agent(task: object) -> object:
        return [look(1), look(2)]

    graph = TaskGraph(
        [TaskNode("a", agent), TaskNode("b", agent, {"a"}), TaskNode("c", agent, {"b"}), TaskNode("d", agent, {"c"})]
    )
    results = GraphExecutor(graph, policy=StrictPolicy(max_tool_calls=4)).execute("x")

    assert statuses(results) == {"a": "SUCCESS", "b": "SUCCESS", "c": "FAILED", "d": "SKIPPED"}
    assert "max_tool_calls" in str(results["c"].error)
    assert "max_tool_calls" in str(results["d"].error)
    assert results.workflow.status == "FAILED"
    assert (results.workflow.violation or {})["rule"] == "max_tool_calls"


def test_a_nodes_own_policy_holds_for_it_alone() -> None:
    """Another node may do what this one may not, and the workflow goes on."""
    graph = TaskGraph([TaskNode("tied", looking, policy=ToolPolicy(deny=["look"])), TaskNode("free", looking)])
    results = GraphExecutor(graph).execute("x")

    assert statuses(results) == {"tied": "FAILED", "free": "SUCCESS"}
    assert results["tied"].violation is not None
    assert str(results.workflow.error).startswith("GraphError: node 'tied' failed")


def test_a_time_limit_over_the_workflow_leaves_every_node_a_report() -> None:
    """What hangs, sync or async, what waits for a slot and what was never reached: all have a report, in time."""

    async def hangs(task: object) -> None:
        await asyncio.sleep(60)

    def hangs_in_a_thread(task: object) -> None:
        time.sleep(3)

    graph = TaskGraph(
        [
            TaskNode("fine", same),
            TaskNode("async", hangs),
            TaskNode("sync", hangs_in_a_thread),
            TaskNode("no slot", same),
            TaskNode("never", same, {"async"}),
        ]
    )
    began = time.monotonic()
    results = GraphExecutor(graph, StrictPolicy(timeout_seconds=0.3), max_concurrency=2).execute("x")

    assert time.monotonic() - began < 2
    assert list(results) == ["fine", "async", "sync", "no slot", "never"]
    assert statuses(results) == {
        "fine": "SUCCESS",
        "async": "FAILED",
        "sync": "FAILED",
        "no slot": "SKIPPED",
        "never": "SKIPPED",
    }
    assert "timeout" in str(results["sync"].error)
    assert "timeout" in str(results["never"].error)


async def test_a_cancelled_workflow_ends_its_nodes() -> None:
    """Who cancels the caller cancels the nodes; their journals say how they ended."""
    began = asyncio.Event()
    ended: list[str] = []

    async def hangs(task: object) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("hangs")

    executor = GraphExecutor(TaskGraph([TaskNode("a", hangs), TaskNode("b", same, {"a"})]))
    task = asyncio.create_task(executor.execute_async("x"))
    await asyncio.wait_for(began.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ended == ["hangs"]
    assert {run.status for run in executor.store.runs()} == {"FAILED"}


def test_a_graph_is_an_agent() -> None:
    """`Orchestrator.run` walks it, and it may be a node of another graph."""
    inner = TaskGraph([TaskNode("x", same), TaskNode("y", lambda task: f"y({task})", {"x"})], name="inner")
    outer = TaskGraph([TaskNode("before", same), TaskNode("in", inner, lambda outputs: outputs["before"], {"before"})])

    report = Orchestrator().run(outer, "topic")

    assert report.agent_name == "graph"
    assert report.final_output == "y(topic\n\nResult of x:\ntopic)"


def test_the_plan_of_a_graph_names_its_nodes() -> None:
    """A resumed graph is refused where the code of a node or an edge is another one: both are in the fingerprint."""
    orchestrator = Orchestrator()
    report = orchestrator.run(TaskGraph([TaskNode("a", same), TaskNode("b", slow, {"a"})]), "x")
    plan = next(one for one in orchestrator.store.read(report.execution_id) if one["type"] == "plan")

    assert {"node a of the graph", "node b of the graph", "edges of the graph"} <= set(plan["fingerprints"]["parts"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TaskGraph([TaskNode("a", same), TaskNode("a", same)]), "there is a node 'a' already"),
        (lambda: TaskGraph(["a"]), "is no node"),
        (lambda: TaskNode("", same), "give a text that is not empty"),
        (lambda: TaskNode("a", same, dependencies="research"), "give the names of other nodes"),
        (lambda: TaskNode("a", same, dependencies=[1]), "give the names of other nodes"),
        (lambda: TaskNode("a", same, retries=-1), "retries"),
        (lambda: TaskNode("a", same, retries=True), "retries=True"),
        (lambda: GraphExecutor(TaskGraph()), "has no node"),
        (lambda: GraphExecutor("graph"), "is no TaskGraph"),
        (
            lambda: GraphExecutor(TaskGraph([TaskNode("draft", same, {"reserch"}), TaskNode("research", same)])),
            r"'reserch', which is not in the graph \(draft -> reserch\); did you mean 'research'",
        ),
        (
            lambda: GraphExecutor(
                TaskGraph([TaskNode("s", same), *(TaskNode(n, same, {d}) for n, d in ("ab", "bc", "ca", "da"))])
            ),
            "cycle: a -> b -> c -> a",
        ),
        (lambda: GraphExecutor(TaskGraph([TaskNode("a", same, {"a"})])), "cycle: a -> a"),
        (lambda: GraphExecutor(diamond(), max_concurrency=0), "max_concurrency=0"),
        (lambda: GraphExecutor(diamond(), max_concurrency=True), "max_concurrency=True"),
        (lambda: GraphExecutor(diamond(), max_concurrency=1.5), "max_concurrency=1.5"),
        (lambda: GraphExecutor(diamond(), store="memory:", persistence_url="memory:"), "both say"),
    ],
)
def test_bad_input_is_refused_in_words(make: Callable[[], object], said: str) -> None:
    """What is wrong with a graph is said when it is made, with the nodes by name."""
    with pytest.raises(ConfigError, match=said):
        make()


def test_an_agent_that_cannot_run_is_a_failed_node() -> None:
    """Every result is a report."""
    results = GraphExecutor(TaskGraph([TaskNode("a", 42), TaskNode("b", same)])).execute("x")

    assert statuses(results) == {"a": "FAILED", "b": "SUCCESS"}
    assert "no way to run 42" in str(results["a"].error)
