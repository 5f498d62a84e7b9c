"""Graphs of 1,000 and 10,000 nodes that do nothing: a chain, and one node with all others behind it."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

from benchmarks.contending import Contender, Figure, Goal, Row
from benchmarks.timing import Measure, is_quick, once

HERE = "benchmarks.rows.graphs"
GOAL_US = 60.0
FLAT = 1.25
"""The most that a node may cost more among 10,000 than among 1,000."""
SIZES = (1_000, 10_000)
SHAPES = ("chain", "fan-out")
QUICK_SIZE = 50
CONCURRENT = 100
WHO = {
    "governed": ("oao", (), "ours"),
    "existing": ("existing implementation", ("open-agent-orchestrator",), "open-agent-orchestrator"),
    "langgraph": ("LangGraph", ("langgraph",), "langgraph"),
    "bare": ("bare asyncio", (), "bare"),
}


def named(who: str, shape: str, size: int) -> str:
    return f"{WHO[who][0]}, {shape} of {size:,}"


def row() -> Row:
    contenders = tuple(
        Contender(
            name=named(make, shape, size),
            make=f"{HERE}:{make}",
            options={"shape": shape, "size": size},
            process=process,
            packages=packages,
        )
        for size in SIZES
        for shape in SHAPES
        for make, (_, packages, process) in WHO.items()
        if (make, shape, size) != ("langgraph", "chain", 10_000)
    )
    goals = [
        Goal(says=f"under 60 us a node, {shape} of {size:,}", contender=named("governed", shape, size), at_most=GOAL_US)
        for size in SIZES
        for shape in SHAPES
    ]
    flat = [
        Goal(
            says=f"flat, {shape}: 10,000 beside 1,000",
            contender=named("governed", shape, SIZES[1]),
            at_most=FLAT,
            than=(named("governed", shape, SIZES[0]),),
        )
        for shape in SHAPES
    ]
    return Row(
        id="graphs",
        title="graphs of 1,000 and 10,000 nodes",
        how="Nodes whose agents return at once, one after the other, or all but the first behind the first, 100 at a "
        "time. Building and checking the graph is not counted; memory journal. Processor time for a node.",
        figures=(
            Figure(key="cpu_us", unit="us a node"),
            Figure(key="wall_us", unit="us wall"),
        ),
        contenders=contenders,
        goals=(*goals, *flat),
        rounds=5,
        limit_s=150.0,
        note="Each node of oao is a run of its own with a journal of its own; of the existing implementation too, "
        "without a journal. A node of LangGraph is a function, and a bare one nothing but an awaited function.",
    )


def before(shape: str, number: int) -> list[str]:
    """Return what a node waits for."""
    if not number:
        return []
    return [f"n{number - 1 if shape == 'chain' else 0}"]


async def agent(task: object) -> str:
    return "done"


def governed(*, shape: str, size: int) -> Measure:
    size = QUICK_SIZE if is_quick() else size
    from oao_harness import GraphExecutor, TaskGraph, TaskNode

    graph = TaskGraph()
    for number in range(size):
        graph.add_node(TaskNode(f"n{number}", agent, task="x", dependencies=before(shape, number)))
    executor = GraphExecutor(graph, max_concurrency=CONCURRENT)

    def run() -> None:
        results = executor.execute("x")
        assert results.workflow.status == "SUCCESS", results
        assert len(results) == size

    return once(run, size)


def existing(*, shape: str, size: int) -> Measure:
    size = QUICK_SIZE if is_quick() else size
    import sys

    from oao.runtime.dag import GraphExecutor, TaskGraph, TaskNode

    from benchmarks.existing import AsyncAgent

    # It looks for cycles by recursion.
    sys.setrecursionlimit(4 * size + 1_000)
    graph, doer = TaskGraph(), AsyncAgent()
    for number in range(size):
        graph.add_node(TaskNode(f"n{number}", doer, before(shape, number)))

    def run() -> None:
        results = GraphExecutor(graph, max_concurrency=CONCURRENT).execute("x")
        assert len(results) == size
        assert all(report.status == "SUCCESS" for report in results.values())
        for node in graph.nodes.values():
            node.result = None

    return once(run, size)


def langgraph(*, shape: str, size: int) -> Measure:
    size = QUICK_SIZE if is_quick() else size
    from langgraph.graph import START, StateGraph

    class State(TypedDict):
        done: Annotated[int, operator.add]

    async def node(state: State) -> State:
        return {"done": 1}

    graph = StateGraph(State)
    for number in range(size):
        graph.add_node(f"n{number}", node)
        graph.add_edge((before(shape, number) or [START])[0], f"n{number}")
    compiled = graph.compile()
    config: Any = {"recursion_limit": size + 10, "max_concurrency": CONCURRENT}

    def run() -> None:
        assert asyncio.run(compiled.ainvoke({"done": 0}, config))["done"] == size

    return once(run, size)


def bare(*, shape: str, size: int) -> Measure:
    size = QUICK_SIZE if is_quick() else size

    async def chain() -> None:
        for _ in range(size):
            await agent("x")

    async def fan_out() -> None:
        free = asyncio.Semaphore(CONCURRENT)

        async def one() -> None:
            async with free:
                await agent("x")

        await agent("x")
        await asyncio.gather(*(one() for _ in range(size - 1)))

    return once(lambda: asyncio.run(chain() if shape == "chain" else fan_out()), size)
