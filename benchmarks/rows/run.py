"""One governed run of an agent that does nothing, sync and async."""

from __future__ import annotations

from typing import Any, TypedDict

from benchmarks.contending import CPU_US, WALL_US, Contender, Goal, Row
from benchmarks.timing import Measure, timed, timed_async

GOAL_US = 100.0
HERE = "benchmarks.rows.run"
STRICT = "oao, strict limits"
STRICT_ASYNC = "oao, strict limits, async"
PEERS = {
    "existing": ("open-agent-orchestrator", "existing implementation", ("open-agent-orchestrator",)),
    "langgraph": ("langgraph", "LangGraph, one node", ("langgraph",)),
    "openai_agents": ("openai-agents", "openai-agents, fake model", ("openai-agents",)),
    "pydantic_ai": ("pydantic-ai", "pydantic-ai, TestModel", ("pydantic-ai-slim",)),
}


def row() -> Row:
    ours = (
        Contender(name=STRICT, make=f"{HERE}:governed"),
        Contender(name="oao, no policy", make=f"{HERE}:governed", options={"policy": "off"}),
        Contender(name="oao, strict limits with a deadline", make=f"{HERE}:governed", options={"deadline": True}),
        Contender(name=STRICT_ASYNC, make=f"{HERE}:governed", options={"asynchronous": True}),
        Contender(
            name="oao, strict limits with a deadline, async",
            make=f"{HERE}:governed",
            options={"deadline": True, "asynchronous": True},
        ),
    )
    peers = [
        Contender(
            name=name + suffix,
            make=f"{HERE}:{function}",
            options={"asynchronous": bool(suffix)},
            process=process,
            packages=packages,
        )
        for suffix in ("", ", async")
        for function, (process, name, packages) in PEERS.items()
    ]
    sync = [one.name for one in peers if not one.options["asynchronous"]]
    asynchronous = [one.name for one in peers if one.options["asynchronous"]]
    return Row(
        id="run",
        title="one run, trivial agent",
        how="One run of an agent that returns its task, a new one after the other; memory journal. Processor time.",
        figures=(CPU_US, WALL_US),
        contenders=(*ours, *peers),
        goals=(
            Goal(says="under 100 us", contender=STRICT, at_most=GOAL_US),
            Goal(says="under 100 us, async", contender=STRICT_ASYNC, at_most=GOAL_US),
            Goal(says="ahead of all", contender=STRICT, at_most=1.0, than=sync),
            Goal(says="ahead of all, async", contender=STRICT_ASYNC, at_most=1.0, than=asynchronous),
        ),
        note="A deadline that also stops an agent which hangs costs a sync run a thread of its own; the existing "
        "implementation looks at the clock between its phases, so its line is beside the limits without a deadline.",
    )


def governed(*, policy: str = "", deadline: bool = False, asynchronous: bool = False) -> Measure:
    from oao_harness import Orchestrator, StrictPolicy

    orchestrator = Orchestrator(policy=policy or StrictPolicy(timeout_seconds=30 if deadline else None))

    def agent(task: str) -> str:
        return task

    async def async_agent(task: str) -> str:
        return task

    def check(report: Any) -> None:
        assert report.status == "SUCCESS", report.error

    async def run_async() -> None:
        check(await orchestrator.run_async(async_agent, "x"))

    return timed_async(run_async) if asynchronous else timed(lambda: check(orchestrator.run(agent, "x")))


def existing(*, asynchronous: bool) -> Measure:
    from benchmarks.existing import Agent, AsyncAgent, checked, orchestrator

    agent, async_agent = Agent(), AsyncAgent()

    async def run_async() -> None:
        checked(await orchestrator().run_async(async_agent, "x"))

    return timed_async(run_async) if asynchronous else timed(lambda: checked(orchestrator().run(agent, "x")))


def langgraph(*, asynchronous: bool) -> Measure:
    from langgraph.graph import START, StateGraph

    class State(TypedDict):
        task: str

    def node(state: State) -> State:
        return {"task": state["task"]}

    async def async_node(state: State) -> State:
        return {"task": state["task"]}

    graph = StateGraph(State)
    graph.add_node("node", async_node if asynchronous else node)
    graph.add_edge(START, "node")
    agent = graph.compile()
    if asynchronous:
        return timed_async(lambda: agent.ainvoke({"task": "x"}))
    return timed(lambda: agent.invoke({"task": "x"}))


def pydantic_ai(*, asynchronous: bool) -> Measure:
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    agent = Agent(TestModel(custom_output_text="x"))
    return timed_async(lambda: agent.run("x")) if asynchronous else timed(lambda: agent.run_sync("x"))


def openai_agents(*, asynchronous: bool) -> Measure:
    from agents import Agent, Runner

    from benchmarks.fakes import fake_openai_model

    agent = Agent(name="trivial", model=fake_openai_model())
    return timed_async(lambda: Runner.run(agent, "x")) if asynchronous else timed(lambda: Runner.run_sync(agent, "x"))
