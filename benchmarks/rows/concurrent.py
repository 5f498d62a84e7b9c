"""1,000 runs at the same time whose agents wait for 50 ms: what they take, and the memory for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict

from benchmarks.contending import WALL_MS, Contender, Figure, Goal, Row
from benchmarks.timing import Measure, forget_peak, is_quick, memory_kib

HERE = "benchmarks.rows.concurrent"
RUNS = 1_000
WAIT_S = 0.05
WARM_RUNS = 10
QUICK_RUNS = 20
OURS = "oao, strict limits"
EXISTING = "existing implementation"
MEMORY = Figure(key="kib_per_run", unit="KiB a run")
CPU_MS = Figure(key="cpu_ms", unit="ms of the processor")
PEERS = {
    "bare": ("bare gather", ()),
    "existing": (EXISTING, ("open-agent-orchestrator",)),
    "langgraph": ("LangGraph, one node", ("langgraph",)),
    "create_agent": ("LangChain create_agent, fake model", ("langchain",)),
    "pydantic_ai": ("pydantic-ai, FunctionModel", ("pydantic-ai-slim",)),
    "openai_agents": ("openai-agents, fake model", ("openai-agents",)),
}


def row() -> Row:
    peers = [
        Contender(name=name, make=f"{HERE}:{make}", process="", packages=packages)
        for make, (name, packages) in PEERS.items()
    ]
    return Row(
        id="concurrent",
        title="1,000 concurrent async runs",
        how="1,000 runs are begun at once and each waits 50 ms, the model where there is one; a fresh process each "
        "time, after ten runs to warm up. Wall; and by how much the most memory that the process ever had is above "
        "what it had before, divided by the runs. Reports are kept until all have ended.",
        figures=(WALL_MS, MEMORY, CPU_MS),
        contenders=(
            Contender(name=OURS, make=f"{HERE}:governed", process=""),
            Contender(
                name="oao, strict limits with a deadline",
                make=f"{HERE}:governed",
                options={"deadline": True},
                process="",
            ),
            *peers,
        ),
        goals=(
            Goal(says="5 times as quick as the existing implementation", contender=OURS, at_most=0.2, than=(EXISTING,)),
            Goal(says="under 8 KiB a run", contender=OURS, at_most=8.0, figure=MEMORY.key),
        ),
        rounds=5,
        note="50 ms of each line are the wait itself.",
    )


def together(run: Callable[[], Awaitable[Any]], check: Callable[[Any], object] = lambda _: None) -> Measure:
    """Return what measures the runs, once."""

    async def some(count: int) -> list[Any]:
        return await asyncio.gather(*(run() for _ in range(count)))

    async def all_of_them() -> dict[str, float]:
        runs = QUICK_RUNS if is_quick() else RUNS
        for report in await some(WARM_RUNS):
            check(report)
        forget_peak()
        before, wall, cpu = memory_kib("VmRSS"), time.perf_counter(), time.process_time()
        reports = await some(runs)
        took, used = time.perf_counter() - wall, time.process_time() - cpu
        most = memory_kib("VmHWM")
        for report in reports:
            check(report)
        return {"wall_ms": took * 1e3, "cpu_ms": used * 1e3, "kib_per_run": (most - before) / runs}

    return lambda: asyncio.run(all_of_them())


def succeeded(report: Any) -> None:
    assert report.status == "SUCCESS", report


def governed(*, deadline: bool = False) -> Measure:
    import oao_harness as oao

    orchestrator = oao.Orchestrator(policy=oao.StrictPolicy(timeout_seconds=30 if deadline else None))

    async def agent(task: str) -> str:
        await asyncio.sleep(WAIT_S)
        return task

    return together(lambda: orchestrator.run_async(agent, "x"), succeeded)


def bare() -> Measure:
    async def agent(task: str = "x") -> str:
        await asyncio.sleep(WAIT_S)
        return task

    return together(agent)


def existing() -> Measure:
    from benchmarks.existing import Agent, orchestrator

    class Waiting(Agent):
        async def ainvoke(self, task: str, config: Any = None) -> dict[str, str]:
            await asyncio.sleep(WAIT_S)
            return {"output": task}

    agent = Waiting()
    return together(lambda: orchestrator().run_async(agent, "x"), succeeded)


def langgraph() -> Measure:
    from langgraph.graph import START, StateGraph

    class State(TypedDict):
        task: str

    async def node(state: State) -> State:
        await asyncio.sleep(WAIT_S)
        return {"task": state["task"]}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    agent = graph.compile()
    return together(lambda: agent.ainvoke({"task": "x"}))


def create_agent() -> Measure:
    from langchain import agents

    from benchmarks.fakes import scripted_model

    agent = agents.create_agent(scripted_model(WAIT_S, tool_calls=0), [])
    return together(lambda: agent.ainvoke({"messages": [("user", "x")]}))


def pydantic_ai() -> Measure:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelResponse, TextPart
    from pydantic_ai.models.function import FunctionModel

    async def answer(*_: object) -> ModelResponse:
        await asyncio.sleep(WAIT_S)
        return ModelResponse(parts=[TextPart("x")])

    agent = Agent(FunctionModel(answer))
    return together(lambda: agent.run("x"))


def openai_agents() -> Measure:
    from agents import Agent, Runner

    from benchmarks.fakes import fake_openai_model

    agent = Agent(name="waiting", model=fake_openai_model(WAIT_S))
    return together(lambda: Runner.run(agent, "x"))
