"""A LangGraph agent with two model and two tool calls: governed beside bare."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from benchmarks.contending import CPU_US, WALL_US, Contender, Goal, Row
from benchmarks.timing import Measure, timed

HERE = "benchmarks.rows.agent"
SLOW_S = 0.05
TASK = {"messages": [("user", "Add 0 and 1, and 1 and 1.")]}
KINDS = {
    "instant": "a model that answers at once",
    "http": "ChatOpenAI and a local server that answers at once",
    "slow": "a model that takes 50 ms",
}
GOVERNED, BARE = "governed", "bare"


def named(way: str, kind: str) -> str:
    return f"{way}, {KINDS[kind]}"


def row() -> Row:
    untouched = Contender(
        name="bare, where oao was never imported, a model that answers at once",
        make=f"{HERE}:bare",
        options={"kind": "instant"},
        process="langchain",
    )
    return Row(
        id="agent",
        title="LangGraph agent, 2 model + 2 tool calls",
        how="`create_agent` of LangChain: the model asks for two tool calls at once, then is done. Governed and bare "
        "in one process, in turns. Processor time of the whole process; with a model that waits, time of the wall.",
        figures=(CPU_US, WALL_US),
        contenders=(
            *(
                Contender(
                    name=named(way, kind),
                    make=f"{HERE}:{function}",
                    options={"kind": kind},
                    packages=("langchain", "langgraph", "langchain-openai", "openai"),
                )
                for kind in KINDS
                for way, function in ((BARE, "bare"), (GOVERNED, "governed"))
            ),
            untouched,
        ),
        goals=tuple(
            Goal(
                says=f"under 3 % more, {words}",
                contender=named(GOVERNED, kind),
                at_most=1.03,
                than=(named(BARE, kind),),
                figure="wall_us" if kind == "slow" else "cpu_us",
            )
            for kind, words in KINDS.items()
        ),
        rounds=15,
        note="The model that answers at once is the harshest: it does nothing but build its message, so all that a "
        "bare agent costs is LangGraph and LangChain. Real agents wait for a model.",
    )


def server_url() -> str:
    """Start a model server in a process of its own, and return its URL. It ends when its standard input does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.model_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    _servers.append(process)
    assert process.stdout is not None
    return process.stdout.readline().strip()


_servers: list[Any] = []


def agent_of(kind: str) -> Any:
    """Return the agent with a model of that kind."""
    from langchain.agents import create_agent
    from langchain_core.tools import StructuredTool

    from benchmarks.fakes import scripted_model

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    if kind == "http":
        from langchain_openai import ChatOpenAI

        model = ChatOpenAI(model="m", base_url=server_url(), api_key="any")
    else:
        model = scripted_model(SLOW_S if kind == "slow" else 0.0)
    return create_agent(model, [StructuredTool.from_function(add)])


def bare(*, kind: str) -> Measure:
    agent = agent_of(kind)

    def run() -> None:
        answer = agent.invoke(TASK)
        assert len(answer["messages"]) == 5

    return timed(run)


def governed(*, kind: str) -> Measure:
    import oao_harness as oao

    return timed(run_of(oao.Orchestrator(policy=oao.StrictPolicy(timeout_seconds=None)), agent_of(kind)))


def run_of(orchestrator: Any, agent: Any) -> Any:
    """Return what runs the agent once, and checks that it was governed."""

    def run() -> None:
        report = orchestrator.run(agent, TASK)
        assert report.status == "SUCCESS", report.error
        assert (report.model_calls, report.tool_calls) == (2, 2)

    return run
